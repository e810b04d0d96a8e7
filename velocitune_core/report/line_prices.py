"""What each label of a comparison costs, what that would have bought, and from what size of run on it pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from velocitune_core.comparison.metrics import domains, run_metrics, runs_of
from velocitune_core.comparison.statistics import ComparisonSummary, Estimate, estimate
from velocitune_core.comparison.tables import MISSING, Row, estimate_in_words, estimate_text
from velocitune_core.mixture_law.break_even import pays_from
from velocitune_core.report.compared_plans import losses_of
from velocitune_core.style.text import difference_text, signed, significant, tokens_text

NEVER = "never"


@dataclass(frozen=True)
class LinePrice:
    """Tokens that a label trains on before its run, and what it gains for them in nats of an average."""

    label: str
    tokens: float  # in the mean over seeds
    share: float  # of the run's own tokens
    gain: Estimate | None  # over the baseline, paired by seed; None for the baseline
    static_gain: float | None  # of static training continued for as many tokens, by the targets' laws; None: no laws
    pays_from: float | None  # run in multiples of `tokens` from which on it gains more; None: never, or unknown


def line_price(summary: ComparisonSummary, label: str, shares: Mapping[str, float] | None = None) -> LinePrice:
    """Return what a label costs and gains.

    The laws behind the targets say what static training gains from more tokens, and the gain of the label is taken to
    be the same at every size of run.

    Args:
        shares: of held-out sets in the average, summing to 1; None: the macro-average.
    """
    comparison = summary.comparison
    names = domains(comparison)
    weights = {name: 1 / len(names) for name in names} if shares is None else {k: v for k, v in shares.items() if v}
    runs, baseline = runs_of(comparison, label), runs_of(comparison, comparison.baseline)

    def average(losses: Mapping[str, float]) -> float:
        return sum(weight * losses[name] for name, weight in weights.items())

    def by_laws(tokens: float) -> float:
        return average({name: float(law.predict(tokens)) for name, law in comparison.target_laws.items()})

    gains = [average(losses_of(baseline[seed])) - average(losses_of(runs[seed])) for seed in runs if seed in baseline]
    gain = None if label == comparison.baseline else estimate(gains)
    added = [run_metrics(comparison, run)["added_tokens"] or 0.0 for run in runs.values()]
    share, own = float(np.mean(added)), float(np.mean([run.result.tokens for run in runs.values()]))
    tokens, static_gain, since = share * own, None, None
    if tokens > 0 and set(weights) <= set(comparison.target_laws):
        static_gain = by_laws(own) - by_laws(own + tokens)
        since = None if gain is None else pays_from(by_laws, gain.mean, tokens)
    return LinePrice(label, tokens, share, gain, static_gain, since)


def price_rows(summary: ComparisonSummary) -> list[Row]:
    """Return the prices and gains in macro-average loss as text, a row per label."""
    rows = []
    for label in summary.strategies:
        each = line_price(summary, label)
        cells = {"strategy": label, "price, tokens": tokens_text(each.tokens) if each.tokens else "none"}
        cells["of a run"] = f"{each.share:.2f}×" if each.tokens else MISSING
        cells["gain over the baseline"] = estimate_text(each.gain, "nats", sign=True)
        cells["static training for that price"] = MISSING if each.static_gain is None else signed(each.static_gain, 3)
        cells["pays for runs from"] = _since(each)
        rows.append(cells)
    return rows


def price_in_words(each: LinePrice, average: str) -> str:
    """Return a sentence on what a label gains of an average, for which price."""
    if each.gain is None or not each.tokens:
        return ""
    gain = estimate_in_words(each.gain)
    gained = f"gains {gain} nats" if each.gain.mean > 0 else f"gains nothing ({gain} nats)"
    said = f"It {gained} of '{average}' for {tokens_text(each.tokens)} tokens ({each.share:.2f} of a run)"
    if each.static_gain is not None:
        said += f", for which static training, continued, would gain {difference_text(each.static_gain)}"
    if each.pays_from is None:
        return f"{said}."
    return f"{said}; it pays for runs from {_since(each)} on."


def _since(each: LinePrice) -> str:
    if each.gain is None:
        return MISSING
    if each.gain.mean <= 0:
        return NEVER
    if not each.tokens:
        return "any size"
    if each.pays_from is None:
        return MISSING
    unsure = ", if it gains at all" if each.gain.sign == 0 else ""
    return (
        f"{significant(each.pays_from, 2)}× the price ({tokens_text(each.pays_from * each.tokens, 2)} tokens){unsure}"
    )
