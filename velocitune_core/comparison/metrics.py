"""What each run of a comparison reached and cost. How runs add up to a verdict is in `comparison_summary`.

Losses are held-out losses in nats per token; shares are fractions; a number that does not exist for a run is None.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from velocitune_core.contracts import ComparedRun, Comparison, ContractError

SETTLED_DISTANCE = 0.05  # total variation
DOWNSTREAM = "downstream/"  # prefix of a family's metric
Unit = Literal["nats", "share", "tokens", "steps", "times", "bits per byte"]


class Metric(NamedTuple):
    """Less is better for all but `speed_up`."""

    heading: str
    unit: Unit
    meaning: str


METRICS = {
    "macro_average_loss": Metric("macro-average loss", "nats", "plain mean of the final losses over domains"),
    "size_weighted_loss": Metric("size-weighted loss", "nats", "mean weighted by the original domain weights"),
    "learnt_average_loss": Metric("learnt average", "nats", "plain mean over the domains that are not retained"),
    "retention": Metric(
        "retention", "nats", "mean over the retained domains of final minus base model's loss; positive: it forgot"
    ),
    "worst_shortfall": Metric(
        "worst shortfall",
        "share",
        "largest (final − target) / (initial − target) over domains whose target is below their initial loss",
    ),
    "tokens_to_baseline": Metric(
        "tokens to baseline", "tokens", "tokens after which the macro-average first is what the baseline ends with"
    ),
    "speed_up": Metric(
        "speed-up", "times", "tokens of the whole run over those needed to reach the baseline's final macro-average"
    ),
    "steps_to_settle": Metric(
        "settles at step", "steps", "first step from which the weights stay within 0.05 total variation of the last"
    ),
    "repeated_tokens": Metric("repeated", "tokens", "tokens drawn beyond one epoch of their domain"),
    "added_tokens": Metric("added tokens", "share", "tokens of proxies and search over the run's own"),
    "added_seconds": Metric(
        "added time", "share", "time of proxies, search, evaluation and reweighting over the rest of the run's own"
    ),
}


def metric(name: str) -> Metric:
    """What a metric is, those of downstream families among them."""
    if name.startswith(DOWNSTREAM):
        return Metric(name.removeprefix(DOWNSTREAM), "bits per byte", "bits per byte of gold answers")
    return METRICS[name]


def domains(comparison: Comparison) -> list[str]:
    return sorted(comparison.initial)


def learnt(comparison: Comparison) -> list[str]:
    """Domains that are not retained."""
    return [name for name in domains(comparison) if name not in comparison.retained]


def retained(comparison: Comparison) -> list[str]:
    return sorted(set(comparison.retained))


def labels(comparison: Comparison) -> list[str]:
    """The baseline, the frontier from least to most even, then the others by name; whatever the order of the runs."""
    present = {run.label for run in comparison.runs}
    first = dict.fromkeys((comparison.baseline, *comparison.frontier))
    return [label for label in first if label in present] + sorted(present - set(first))


def runs_of(comparison: Comparison, label: str) -> dict[int, ComparedRun]:
    """By seed, in order of seeds."""
    runs = {run.seed: run for run in comparison.runs if run.label == label}
    return dict(sorted(runs.items()))


def mean_loss(losses: Mapping[str, float], names: Sequence[str]) -> float | None:
    """Plain mean over `names`; None where there are none."""
    return math.fsum(losses[name] for name in names) / len(names) if names else None


def loss_curve(comparison: Comparison, run: ComparedRun, names: Sequence[str]) -> tuple[NDArray, NDArray]:
    """Tokens (T,), and the mean loss over `names` (T,) from the base model through all evaluations to the end."""
    result = run.result
    curve = {0: comparison.initial} | {point.tokens: point.losses for point in result.points}
    curve[result.tokens] = result.final
    tokens = sorted(curve)
    return np.array(tokens, float), np.array([mean_loss(curve[at], names) for at in tokens])


def run_metrics(comparison: Comparison, run: ComparedRun) -> dict[str, float | None]:
    """Every metric of METRICS by name, and `downstream/<family>`.

    The shares of added time are over the run's wall time without evaluation and reweighting. Both are counted for
    every strategy, also for one that needs no held-out losses; the difference to the baseline leaves that out.
    """
    result, spent = run.result, run.result.seconds
    seen = result.tokens_per_domain
    own_seconds = spent.total - spent.evaluation - spent.reweighting
    proxies = (comparison.proxy_tokens, comparison.proxy_seconds) if run.uses_targets else (0, 0.0)
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


def worst_shortfall(comparison: Comparison, losses: Mapping[str, float]) -> float | None:
    """Largest (loss − target) / (initial − target) over domains with a real gap: 1 = nothing learnt, 0 = at target."""
    gaps = {name: comparison.initial[name] - comparison.targets[name] for name in domains(comparison)}
    return max(((losses[name] - comparison.targets[name]) / gap for name, gap in gaps.items() if gap > 0), default=None)


def tokens_to_baseline(comparison: Comparison, run: ComparedRun) -> float | None:
    """Tokens after which the macro-average first is the one that the baseline of the same seed ends with.

    Linear between evaluations; None if that never happens or the seed has no baseline. The run is then still in the
    middle of its learning-rate schedule and the baseline at the end of one, so the speed-up is rather too small.
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
        return 0.0  # the baseline ends no better than the base model
    share = (losses[end - 1] - goal) / (losses[end - 1] - losses[end])
    return float(tokens[end - 1] + share * (tokens[end] - tokens[end - 1]))


def steps_to_settle(run: ComparedRun) -> float | None:
    """The first step from which all later weights stay within SETTLED_DISTANCE of the last ones.

    The distance of two mixtures is their total variation, half the sum of absolute differences: the share of a batch
    that would come from another domain. Weights are known where they were recorded, which is at evaluations.
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
    return math.fsum(abs(one[name] - other[name]) for name in one) / 2


def is_dynamic(run: ComparedRun) -> bool:
    """Whether the weights moved at all."""
    trajectory = run.result.domain_weights
    return any(total_variation(point.weights, trajectory[0].weights) > 1e-9 for point in trajectory)


def check_comparison(comparison: Comparison) -> None:
    """Raises ContractError, with all problems in one message, unless all runs can be measured against each other."""
    problems = [*_part_problems(comparison), *_run_problems(comparison)]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ContractError(f"these runs cannot be compared:\n{lines}")


def _part_problems(comparison: Comparison) -> Iterator[str]:
    present = sorted({run.label for run in comparison.runs})
    if comparison.baseline not in present:
        yield f"baseline {comparison.baseline!r} has no run: train it, or make one of {present} the baseline"
    for label in comparison.frontier:
        if label not in present:
            yield f"frontier names {label!r}, which has no run: train it, or take it out of compare.frontier"
    wanted = set(comparison.initial)
    if not wanted:
        yield "initial losses name no domain: run the stage initial"
    for part in ("targets", "initial_domain_weights", "domain_tokens"):
        if problem := _domain_problem(wanted, getattr(comparison, part)):
            yield f"{part}: {problem}: rerun the stages that make the initial losses and the targets"
    if unknown := sorted(set(comparison.retained) - wanted):
        yield f"retained: {unknown} are no domains: choose compare.retained from {sorted(wanted)}"


def _run_problems(comparison: Comparison) -> Iterator[str]:
    for (label, seed), count in sorted(Counter((run.label, run.seed) for run in comparison.runs).items()):
        if count > 1:
            yield f"{label}, seed {seed}: given {count} times: keep one of them"
    runs = sorted(comparison.runs, key=lambda run: (run.label != comparison.baseline, run.label, run.seed))
    for run in runs:
        where, result, first = f"{run.label}, seed {run.seed}", run.result, runs[0]
        if problem := _domains_of_run(set(comparison.initial), run):
            yield f"{where}: {problem}: train it on the domains of this comparison"
        for unit, ours, theirs in (
            ("tokens", result.tokens, first.result.tokens),
            ("steps", result.steps, first.result.steps),
        ):
            if ours != theirs:
                yield (
                    f"{where}: {ours} {unit}, but {first.label}, seed {first.seed} has {theirs}: "
                    "train both for the same budget"
                )
        losses = [result.final, *(point.losses for point in result.points)]
        if bad := sorted({name for each in losses for name, loss in each.items() if not math.isfinite(loss)}):
            yield f"{where}: losses of {bad} are not finite: train it again with a lower learning rate, or leave it out"


def _domains_of_run(wanted: set[str], run: ComparedRun) -> str:
    result = run.result
    parts = {"final losses": result.final, "tokens_per_domain": result.tokens_per_domain}
    parts |= {f"losses of step {point.step}": point.losses for point in result.points}
    parts |= {f"weights of step {point.step}": point.weights for point in result.domain_weights}
    problems = (f"{part} {problem}" for part, names in parts.items() if (problem := _domain_problem(wanted, names)))
    return next(problems, "")  # the others repeat it


def _domain_problem(wanted: set[str], names: Mapping[str, object]) -> str:
    lacking, unknown = sorted(wanted - set(names)), sorted(set(names) - wanted)
    parts = [f"lack {lacking}"] * bool(lacking) + [f"have unknown {unknown}"] * bool(unknown)
    return " and ".join(parts)
