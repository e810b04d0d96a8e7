"""The numbers of a report: a row per domain, the metrics of metrics.json, and a few key figures.

The page, the terminal and the artifacts all show `result_rows`; `summary_metrics` is written to metrics.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from velocitune_core.contracts import TrainResult, overfitted_domains
from velocitune_core.report.headline import answer, immobile
from velocitune_core.report.report_data import ReportData
from velocitune_core.style.text import difference_text, listed, percent, signed, tokens_text

FLAG_MEANINGS = {
    "too_few_points": "the law is fitted to so few proxies that its error is unknown",
    "at_bound": "a parameter of the fit is at the bound of its range",
    "wide_interval": "the interval of the target is wider than (the configured share of) its gap to the initial loss",
    "not_decreasing": "the proxies' losses do not decrease with more tokens",
    "above_initial": "the target is not below the initial loss, so there is no gap to close",
    "missing_proxies": "some of the proxies failed, so the law is fitted to the others",
}


def result_rows(report: ReportData) -> list[dict[str, Any]]:
    """Return one row per domain in name order.

    Losses are in nats per token; weights, gap_closed and target_error are fractions. gap_closed is None where the
    target is not below the initial loss; target_error is (target − reached) / reached. overfitted: at any evaluation.
    """
    train = report.train
    final_weights = train.domain_weights[-1].weights if train.domain_weights else report.initial_domain_weights
    overfitted = overfitted_domains(train.points, train.domain_weights)
    rows = []
    for name in sorted(report.manifest.domains):
        initial, target = report.initial.losses[name], report.targets.domains[name]
        reached = train.final[name]
        rows.append(
            {
                "domain": name,
                "tokens": train.tokens_per_domain[name],
                "initial_weight": report.initial_domain_weights[name],
                "final_weight": final_weights[name],
                "epochs": train.epochs_per_domain[name],
                "initial": initial,
                "target": target.target,
                "reached": reached,
                "gap_closed": (initial - reached) / (initial - target.target) if target.target < initial else None,
                "target_error": (target.target - reached) / reached if reached else None,
                "flags": list(target.flags),
                "worse_than_initial": reached > initial,
                "overfitted": name in overfitted,
            }
        )
    return rows


def formatted_rows(report: ReportData) -> list[dict[str, str]]:
    """Return `result_rows` as text, column heading → cell."""

    def cells(row: dict[str, Any]) -> dict[str, str]:
        gap, error = row["gap_closed"], row["target_error"]
        return {
            "domain": row["domain"],
            "tokens": tokens_text(row["tokens"]),
            "weight, initial → final": f"{percent(row['initial_weight'])} → {percent(row['final_weight'])}",
            "epochs": f"{row['epochs']:.2f}",
            "initial": f"{row['initial']:.3f}",
            "target": f"{row['target']:.3f}",
            "reached": f"{row['reached']:.3f}" + (" ▲" if row["worse_than_initial"] else ""),
            "gap closed": "–" if gap is None else f"{gap * 100:.0f} %",
            "target error": "–" if error is None else f"{signed(error * 100, 1)} %",
            "flags": ", ".join([*_readable(row["flags"]), *["overfitted"] * row["overfitted"]]),
        }

    return [cells(row) for row in result_rows(report)]


def _readable(flags: Sequence[str]) -> list[str]:
    return [flag.replace("_", " ") for flag in flags]


def summary_metrics(report: ReportData) -> dict[str, Any]:
    """Return the numbers of metrics.json, without those that do not exist for this run.

    Losses are in nats per token. mean_weight is the mixture of the run. size_weighted_loss is weighted by the initial
    domain weights; evaluation_share is evaluation plus reweighting over the run's wall time; worst_shortfall is the
    largest (reached − target) / (initial − target) over domains whose target is below their initial loss.
    """
    rows, train = result_rows(report), report.train
    shortfalls = [1 - row["gap_closed"] for row in rows if row["gap_closed"] is not None]
    metrics: dict[str, Any] = {
        "macro_average_loss": {
            when: sum(row[key] for row in rows) / len(rows)
            for when, key in (("initial", "initial"), ("final", "reached"))
        },
        "size_weighted_loss": {
            when: sum(row["initial_weight"] * row[key] for row in rows)
            for when, key in (("initial", "initial"), ("final", "reached"))
        },
        "loss": {row["domain"]: row["reached"] for row in rows},
        "mean_weight": {name: train.mean_domain_weights[name] for name in sorted(train.mean_domain_weights)},
        "target_error": {row["domain"]: row["target_error"] for row in rows if row["target_error"] is not None},
        "evaluation_share": evaluation_share(train),
        "tokens_per_second": train.tokens_per_second,
        "proxy_tokens_share": sum(proxy.tokens for proxy in report.proxies) / train.tokens if train.tokens else 0.0,
    }
    if report.weights is not None and report.weights.own_runs and train.tokens:
        metrics["weights_tokens_share"] = sum(run.tokens for run in report.weights.own_runs) / train.tokens
    if shortfalls:
        metrics["worst_shortfall"] = max(shortfalls)
    return metrics


def evaluation_share(train: TrainResult) -> float:
    """Return evaluation plus reweighting as a fraction of the run's wall time."""
    spent = train.seconds
    return (spent.evaluation + spent.reweighting) / spent.total if spent.total else 0.0


def key_figures(report: ReportData) -> dict[str, str]:
    """Return the outcome in a few labelled figures, label → text."""
    rows, metrics, train = result_rows(report), summary_metrics(report), report.train
    found, averages = answer(report), metrics["macro_average_loss"]
    before, after = averages["initial"], averages["final"]
    by_change = sorted(rows, key=lambda row: (row["reached"] - row["initial"], row["domain"]))
    gained = [row for row in by_change if row["reached"] < row["initial"]][:3]
    worse = [row for row in reversed(by_change) if row["worse_than_initial"]]
    mean = f"mean held-out loss of {len(rows)} domains" if len(rows) > 1 else "held-out loss"
    flagged = _flagged(rows)
    change = difference_text(100 * (after / before - 1), 1)
    figures = {
        "answer": found.sentence,
        "strategy": found.strategy,
        "mixture": immobile(train) or _shares(found.mixture),
        "tokens": tokens_text(train.tokens),
        mean: f"{before:.3f} → {after:.3f} nats per token ({change} %)",
        "largest gains": listed([_change(row) for row in gained]) if gained and len(rows) > 1 else "",
        "worse than the base model": listed([_change(row) for row in worse]) if worse else "no domain",
        "only measured": listed(_only_measured(report)) if train.measured else "",
        "flagged targets": "; ".join(flagged),
        "evaluation and reweighting": f"{percent(metrics['evaluation_share'])} of the run's wall time",
    }
    return {label: text for label, text in figures.items() if text}


def _shares(mixture: Mapping[str, float]) -> str:
    """Return the mean weights of a run as text, the largest first."""
    ordered = sorted(mixture, key=lambda name: (-mixture[name], name))
    return f"{listed([f'{name} {percent(mixture[name])}' for name in ordered], 12)} (mean of the run)"


def _only_measured(report: ReportData) -> list[str]:
    before, after = report.initial.measured, report.train.measured
    return [
        f"{name} ({before[name]:.3f} → {loss:.3f})" if name in before else f"{name} ({loss:.3f})"
        for name, loss in after.items()
    ]


def _change(row: dict[str, Any]) -> str:
    return f"{row['domain']} ({difference_text(row['reached'] - row['initial'], 2)} nats)"


def _flagged(rows: list[dict[str, Any]]) -> list[str]:
    """Return a text per raised flag, with its domains."""
    domains_of = {flag: [row["domain"] for row in rows if flag in row["flags"]] for flag in FLAG_MEANINGS}
    return [
        f"{flag.replace('_', ' ')} ({'all domains' if len(rows) > 1 and len(names) == len(rows) else listed(names)})"
        for flag, names in domains_of.items()
        if names
    ]
