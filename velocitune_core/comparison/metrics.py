"""Metrics of single runs of a comparison.

Losses are held-out losses in nats per token; shares are fractions; a metric that does not exist for a run is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from velocitune_core.contracts import ComparedRun, Comparison

SETTLED_DISTANCE = 0.05  # total variation
DOWNSTREAM = "downstream/"  # prefix of a family's metric
Unit = Literal["nats", "share", "tokens", "steps", "times", "bits per byte"]


class Metric(NamedTuple):
    """Name, unit and definition; less is better for all but `speed_up`."""

    heading: str
    unit: Unit
    meaning: str


METRICS = {
    "macro_average_loss": Metric("macro-average loss", "nats", "unweighted mean of the final losses over domains"),
    "size_weighted_loss": Metric("size-weighted loss", "nats", "mean weighted by the initial domain weights"),
    "learnt_average_loss": Metric("learnt average", "nats", "unweighted mean over the domains that are not retained"),
    "retention": Metric(
        "retention", "nats", "mean over the retained domains of final minus initial loss; positive: forgetting"
    ),
    "worst_shortfall": Metric(
        "worst shortfall",
        "share",
        "largest (final − target) / (initial − target) over domains whose target is below their initial loss",
    ),
    "tokens_to_baseline": Metric(
        "tokens to baseline", "tokens", "tokens after which the macro-average first reaches the baseline's final value"
    ),
    "speed_up": Metric(
        "speed-up", "times", "tokens of the run over those needed to reach the baseline's final macro-average"
    ),
    "steps_to_settle": Metric(
        "settles at step",
        "steps",
        "first step from which weights stay within a total variation of 0.05 of the last",
    ),
    "repeated_tokens": Metric("repeated", "tokens", "tokens drawn beyond one epoch of their domain"),
    "added_tokens": Metric(
        "added tokens", "share", "tokens of the proxies behind its targets, and of its search, over the run's own"
    ),
    "added_seconds": Metric(
        "added time", "share", "time of proxies, search, evaluation and reweighting over the rest of the run's own"
    ),
}


def metric(name: str) -> Metric:
    """Return the definition of a metric, also of `downstream/<family>`."""
    if name.startswith(DOWNSTREAM):
        return Metric(name.removeprefix(DOWNSTREAM), "bits per byte", "bits per byte of gold answers")
    return METRICS[name]


def domains(comparison: Comparison) -> list[str]:
    """Return all domains in name order."""
    return sorted(comparison.initial)


def learnt(comparison: Comparison) -> list[str]:
    """Return the domains that are not retained, in name order."""
    return [name for name in domains(comparison) if name not in comparison.retained]


def retained(comparison: Comparison) -> list[str]:
    """Return the retained domains in name order."""
    return sorted(set(comparison.retained))


def labels(comparison: Comparison) -> list[str]:
    """Return the baseline, the frontier from least to most even, then the others by name."""
    present = {run.label for run in comparison.runs}
    first = dict.fromkeys((comparison.baseline, *comparison.frontier))
    return [label for label in first if label in present] + sorted(present - set(first))


def runs_of(comparison: Comparison, label: str) -> dict[int, ComparedRun]:
    """Return the runs of a label by seed, in order of seeds."""
    runs = {run.seed: run for run in comparison.runs if run.label == label}
    return dict(sorted(runs.items()))


def mean_loss(losses: Mapping[str, float], names: Sequence[str]) -> float | None:
    """Return the unweighted mean over `names`; None without names."""
    return math.fsum(losses[name] for name in names) / len(names) if names else None


def loss_curve(comparison: Comparison, run: ComparedRun, names: Sequence[str]) -> tuple[NDArray, NDArray]:
    """Return tokens (T,) and the mean loss over `names` (T,) of the base model and all evaluations."""
    result = run.result
    curve = {0: comparison.initial} | {point.tokens: point.losses for point in result.points}
    curve[result.tokens] = result.final
    tokens = sorted(curve)
    return np.array(tokens, float), np.array([mean_loss(curve[at], names) for at in tokens])


def run_metrics(comparison: Comparison, run: ComparedRun) -> dict[str, float | None]:
    """Return every metric of METRICS by name, and `downstream/<family>`.

    Added time is a share of the run's wall time without evaluation and reweighting, which are added time for every
    strategy, also for one that needs no held-out losses; they cancel in the difference to the baseline.
    """
    result, spent = run.result, run.result.seconds
    seen = result.tokens_per_domain
    own_seconds = spent.total - spent.evaluation - spent.reweighting
    proxies = proxy_cost(comparison, run)
    added_seconds = proxies[1] + run.search_seconds + spent.evaluation + spent.reweighting
    before = mean_loss(comparison.initial, retained(comparison))
    after = mean_loss(result.final, retained(comparison))
    reached = tokens_to_baseline(comparison, run)
    return {
        "macro_average_loss": mean_loss(result.final, domains(comparison)),
        "size_weighted_loss": math.fsum(
            comparison.initial_domain_weights[name] * result.final[name] for name in domains(comparison)
        ),
        "learnt_average_loss": mean_loss(result.final, learnt(comparison)),
        "retention": None if before is None or after is None else after - before,
        "worst_shortfall": worst_shortfall(comparison, result.final),
        "tokens_to_baseline": reached,
        "speed_up": result.tokens / reached if reached else None,
        "steps_to_settle": steps_to_settle(run),
        "repeated_tokens": float(
            sum(max(0, seen[name] - comparison.domain_tokens[name]) for name in domains(comparison))
        ),
        "added_tokens": (proxies[0] + run.search_tokens) / result.tokens if result.tokens else None,
        "added_seconds": added_seconds / own_seconds if own_seconds > 0 else None,
        **{DOWNSTREAM + family: value for family, value in sorted(run.downstream.items())},
    }


def proxy_cost(comparison: Comparison, run: ComparedRun) -> tuple[int, float]:
    """Return tokens and seconds of the proxies behind a run's targets; zero for a run that uses none."""
    if not run.uses_targets:
        return 0, 0.0
    tokens = comparison.proxy_tokens if run.proxy_tokens is None else run.proxy_tokens
    return tokens, comparison.proxy_seconds if run.proxy_seconds is None else run.proxy_seconds


def wall_seconds(comparison: Comparison) -> float:
    """Return the wall time of all runs and of what found their weights, without proxies.

    What several runs share, as a swarm of all seeds or a reference model that is the baseline's run, counts once.
    """
    runs: dict[str, float] = {}
    before: dict[str, float] = {}
    for run in comparison.runs:
        name = f"{run.label}-seed-{run.seed}"
        runs[run.result.recipe or name] = run.result.seconds.total
        before |= run.search_runs or {f"{name}-search": run.search_seconds}  # of before `search_runs`
    alone = [seconds for key, seconds in before.items() if not any(recipe.startswith(key) for recipe in runs)]
    return math.fsum([*runs.values(), *alone])


def worst_shortfall(comparison: Comparison, losses: Mapping[str, float]) -> float | None:
    """Return the largest (loss − target) / (initial − target) over domains with initial > target; None without any."""
    gaps = {name: comparison.initial[name] - comparison.targets[name] for name in domains(comparison)}
    return max(((losses[name] - comparison.targets[name]) / gap for name, gap in gaps.items() if gap > 0), default=None)


def tokens_to_baseline(comparison: Comparison, run: ComparedRun) -> float | None:
    """Return the tokens after which the macro-average first reaches the final one of the baseline of the same seed.

    Interpolated linearly between evaluations; None if it is never reached or the seed has no baseline. At that point
    the run has not finished its learning-rate schedule and the baseline has, so the speed-up is underestimated.
    """
    baseline = runs_of(comparison, comparison.baseline).get(run.seed)
    if baseline is None:
        return None
    goal = mean_loss(baseline.result.final, domains(comparison))
    tokens, losses = loss_curve(comparison, run, domains(comparison))
    below = np.flatnonzero(losses <= goal)
    if not below.size:
        return None
    end = below[0]
    if end == 0:
        return 0.0  # the baseline is no better than the base model
    share = (losses[end - 1] - goal) / (losses[end - 1] - losses[end])
    return float(tokens[end - 1] + share * (tokens[end] - tokens[end - 1]))


def steps_to_settle(run: ComparedRun) -> float | None:
    """Return the first step from which all weights stay within SETTLED_DISTANCE of the last ones.

    The distance is the total variation: the share of a batch that would come from another domain. Weights are recorded
    at evaluations only; None without records.
    """
    trajectory = run.result.domain_weights
    if not trajectory:
        return None
    settled = trajectory[-1]
    for point in reversed(trajectory):
        if total_variation(point.weights, trajectory[-1].weights) > SETTLED_DISTANCE:
            break
        settled = point
    return float(settled.step)


def total_variation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return half the sum of absolute differences of two mixtures."""
    return math.fsum(abs(one[name] - other[name]) for name in one) / 2


def is_dynamic(run: ComparedRun) -> bool:
    """Return whether the weights changed during the run."""
    trajectory = run.result.domain_weights
    return any(total_variation(point.weights, trajectory[0].weights) > 1e-9 for point in trajectory)
