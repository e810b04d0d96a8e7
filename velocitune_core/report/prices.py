"""What a training cost with all that its weights and targets needed, in runs: the same sum in report and comparison.

Proxies belong to the price of a strategy that uses targets, and of no other: the pipeline trains them for its report.
"""

from __future__ import annotations

from collections.abc import Mapping

from velocitune_core.comparison.metrics import proxy_cost, runs_of
from velocitune_core.contracts import Comparison
from velocitune_core.report.report_data import ReportData
from velocitune_core.strategies import StrategyError, measured_options
from velocitune_core.style.text import listed

SEARCH_OR_SWARM = "search or swarm"  # a compared run does not record which
_UNITS = {
    "swarm": " by operations",
    SEARCH_OR_SWARM: " by operations",
}  # tokens of a sibling are cheaper


def price_of_pipeline(report: ReportData) -> str:
    """Return the price of a training for a sentence, and what proxies cost that are no part of it."""
    price, aside = _in_words(runs_spent(report)), _proxies_aside(report)
    if not aside:
        return price
    return f"{price}, without {aside:.2f} for proxies, which only the targets in this report need"


def price_of_label(comparison: Comparison, label: str) -> str:
    """Return the price of a label for a sentence, in the mean over its seeds."""
    runs = [run for run in runs_of(comparison, label).values() if run.result.tokens]
    parts = {"proxies": 0.0, SEARCH_OR_SWARM: 0.0}
    for run in runs:
        parts["proxies"] += proxy_cost(comparison, run)[0] / run.result.tokens / len(runs)
        parts[SEARCH_OR_SWARM] += run.search_tokens / run.result.tokens / len(runs)
    return _in_words(parts)


def runs_spent(report: ReportData) -> dict[str, float]:
    """Return what the training needed before it, in multiples of it: `proxies`, and `search` or `swarm`.

    Multiples are of tokens, and for a swarm, whose model may be smaller, of floating-point operations. Runs that served
    both as proxies and in the swarm are counted as proxies, if those are part of the price.
    """
    spent, tokens, weights = {}, report.train.tokens, report.weights
    if not tokens:
        return {}
    targets = _uses_targets(report)
    if report.proxies and targets:
        spent["proxies"] = sum(proxy.tokens for proxy in report.proxies) / tokens
    if weights is not None and weights.search:
        spent["search"] = sum(run.tokens for run in weights.search) / tokens
    if weights is not None and weights.planned is not None:
        paid = sum(run.flops for run in weights.paid_runs)
        own = sum(run.flops for run in weights.paid_runs if not (targets and run.shared))
        spent["swarm"] = weights.planned.worth.share * own / paid if paid else 0.0
    return spent


def _uses_targets(report: ReportData) -> bool:
    """Return whether the training follows the targets; also if the class of a strategy of one's own is not there."""
    weights = report.weights
    if weights is not None and weights.planned is not None:
        return weights.steering is not None
    try:
        return "target_loss" in measured_options(report.train.strategy if weights is None else weights.strategy)
    except StrategyError:
        return True


def _proxies_aside(report: ReportData) -> float:
    """Return the proxies that are no part of the price, in runs; those in the swarm are part of it."""
    if _uses_targets(report) or not report.train.tokens:
        return 0.0
    swarm = {run.name for run in report.weights.paid_runs} if report.weights is not None else set[str]()
    return sum(proxy.tokens for proxy in report.proxies if proxy.name not in swarm) / report.train.tokens


def _in_words(spent: Mapping[str, float]) -> str:
    """Return a price in runs of the training, with its parts."""
    parts = [f"{name} {share:.2f}{_UNITS.get(name, '')}" for name, share in spent.items() if share]
    if not parts:
        return "at the price of one run"
    return f"at the price of {1 + sum(spent.values()):.2f} runs ({listed(['training 1', *parts])})"
