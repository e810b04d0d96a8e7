"""The outcome of a comparison in a paragraph."""

from __future__ import annotations

import math
from collections.abc import Sequence

from velocitune_core.comparison.statistics import ComparisonSummary, Estimate, StrategySummary
from velocitune_core.comparison.tables import MISSING, estimate_in_words
from velocitune_core.contracts import overfitted_domains
from velocitune_core.style.text import counted, listed, percent, tokens_text


def outcome(summary: ComparisonSummary) -> str:
    """Return the best constant mixture, strategies below the frontier, forgetting and cost, as a paragraph."""
    tokens = tokens_text(summary.comparison.runs[0].result.tokens)
    labels, seeds = counted(len(summary.strategies), "strategy"), counted(len(summary.seeds), "seed")
    sentences = [
        f"{labels}, {seeds}, {tokens} tokens per run.",
        _best_constant(summary),
        *_below_frontier(summary),
        _forgetting(summary),
        _overfitted(summary),
        _cost(summary),
        _own_targets(summary),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _best_constant(summary: ComparisonSummary) -> str:
    constant = summary.constant or [each for each in [summary.baseline] if not each.dynamic]
    if not constant:
        return ""
    best = min(constant, key=lambda each: _macro(each).mean)
    text = f"{best.label} with a macro-average loss of {estimate_in_words(_macro(best), sign=False)} nats per token"
    difference = best.differences["macro_average_loss"]
    if best is not summary.baseline and difference is not None:
        text += f", {estimate_in_words(difference)} against {summary.baseline.label}"
    return f"The best constant mixture is {text}."


def _macro(strategy: StrategySummary) -> Estimate:
    found = strategy.metrics["macro_average_loss"]
    assert found is not None, "every run has losses"
    return found


def _below_frontier(summary: ComparisonSummary) -> list[str]:
    """Return a sentence per plane: the strategies that gain, or that none does."""
    if not summary.comparison.frontier:
        return ["No constant mixtures are named as a frontier, so a gain cannot be distinguished from a trade."]
    if not summary.contenders:
        return []
    if len(summary.seeds) == 1:
        return ["One seed gives no interval, so whether any strategy beats the constant mixtures is undecided."]
    sentences = []
    axes = {
        "size_weighted": "macro-average loss at the same size-weighted loss",
        "retention": "average loss of the learnt domains at the same retention",
    }
    for plane, meaning in axes.items():
        found = [(each.label, distance) for each in summary.contenders if (distance := each.distances[plane])]
        if not found:
            continue
        gains = [
            f"{label} ({estimate_in_words(distance.estimate)})"
            for label, distance in sorted(found, key=lambda pair: pair[1].estimate.mean)
            if distance.verdict == "gain"
        ]
        worse = [label for label, distance in found if distance.verdict == "loses"]
        who = f"{listed(gains)} {'are' if len(gains) > 1 else 'is'}" if gains else "no other strategy is"
        text = f"In {meaning}, {who} below the frontier of constant mixtures with an interval that excludes zero"
        sentences.append(text + (f"; {listed(worse)} {'are' if len(worse) > 1 else 'is'} above it." if worse else "."))
    return sentences


def _forgetting(summary: ComparisonSummary) -> str:
    found = {
        label: estimate
        for label, strategy in summary.strategies.items()
        if (estimate := strategy.metrics.get("retention")) is not None
    }
    if not found:
        return ""
    of = listed(sorted(set(summary.comparison.retained)))
    forgot = sorted((label for label in found if _above_zero(found[label])), key=lambda label: -found[label].mean)
    if not forgot:
        return (
            f"No strategy has significantly forgotten {of}."
            if len(summary.seeds) > 1
            else f"No strategy has forgotten {of}."
        )
    worst, least = forgot[0], min(found, key=lambda label: found[label].mean)
    everyone = len(forgot) == len(found)
    who = "All strategies have" if everyone else f"{listed(forgot)} {'have' if len(forgot) > 1 else 'has'}"
    text = f"{who} partly forgotten {of}: {estimate_in_words(found[worst])} nats"
    if len(found) > 1 and estimate_in_words(found[worst]) != estimate_in_words(found[least]):
        text += f" with {worst}, {estimate_in_words(found[least])} with {least}"
    return f"{text}."


def _overfitted(summary: ComparisonSummary) -> str:
    """Return under which labels domains got more of the batch while their losses rose, and in how many seeds."""
    found: dict[str, set[str]] = {}
    seeds: dict[str, int] = {}
    for run in summary.comparison.runs:
        if names := overfitted_domains(run.result.points, run.result.domain_weights):
            found.setdefault(run.label, set()).update(names)
            seeds[run.label] = seeds.get(run.label, 0) + 1
    if not found:
        return ""
    under = [
        f"{listed(sorted(found[label]))} under {label} ({seeds[label]} of {counted(len(strategy.runs), 'seed')})"
        for label, strategy in summary.strategies.items()
        if label in found
    ]
    return f"Losses rose while weights grew, probably by overfitting: {'; '.join(under)}."


def _above_zero(found: Estimate) -> bool:
    return found.mean > 0 if found.sign is None else found.sign > 0


def _cost(summary: ComparisonSummary) -> str:
    """Return the added cost of the strategies that gain, or its range over the contenders if none does."""
    gains = [
        each
        for each in summary.contenders
        if any(found and found.verdict == "gain" for found in each.distances.values())
    ]

    def shares(strategy: StrategySummary) -> tuple[float, float]:
        added = (strategy.metrics["added_tokens"], strategy.metrics["added_seconds"])
        return tuple(found.mean if found else math.nan for found in added)  # type: ignore[return-value]

    def text(share: float) -> str:
        return MISSING if math.isnan(share) else percent(share)

    if gains:
        costs = [
            f"{each.label} {text(tokens)} tokens and {text(seconds)} time"
            for each in gains
            for tokens, seconds in [shares(each)]
        ]
        return f"Added to the run's own cost by the strategies that gain: {'; '.join(costs)}."
    if not summary.contenders:
        return ""
    tokens, seconds = zip(*(shares(each) for each in summary.contenders), strict=True)
    return f"Added to the run's own cost by the other strategies: {_range(tokens)} tokens and {_range(seconds)} time."


def _own_targets(summary: ComparisonSummary) -> str:
    """Return which strategies have targets from other proxies than the rest, and how many tokens these took."""
    comparison = summary.comparison
    tokens = {run.label: run.proxy_tokens for run in comparison.runs if run.uses_targets and run.proxy_tokens}
    if not tokens:
        return ""
    own = listed([f"{label} ({tokens_text(count)} tokens)" for label, count in sorted(tokens.items())])
    return (
        f"Proxies are counted where targets are used: those of {own}, and for the other strategies with targets those "
        f"of the pipeline ({tokens_text(comparison.proxy_tokens)} tokens)."
    )


def _range(shares: Sequence[float]) -> str:
    known = [share for share in shares if not math.isnan(share)]
    if not known:
        return "unknown"
    low, high = percent(min(known)), percent(max(known))
    return low if low == high else f"{low} to {high}"
