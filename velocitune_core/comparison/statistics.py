"""Means with intervals over seeds, differences to the baseline, distances to the frontier, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit

from velocitune_core.comparison.checks import check_comparison
from velocitune_core.comparison.frontier import Frontier
from velocitune_core.comparison.metrics import (
    domains,
    is_dynamic,
    labels,
    run_metrics,
    runs_of,
)
from velocitune_core.contracts import Comparison

LEVEL = 0.95  # of all intervals
DIGITS = 3  # of losses, as they are shown
CENSORED = ("tokens_to_baseline", "speed_up")  # a mean over the seeds that reached it would leave out the worst
Verdict = Literal["gain", "on the frontier", "loses"]
Values = Mapping[str, float | None]


class Plane(NamedTuple):
    """Two metrics that constant mixtures trade for each other."""

    name: str
    x: str
    y: str


PLANES = (
    Plane("size_weighted", "size_weighted_loss", "macro_average_loss"),
    Plane("retention", "retention", "learnt_average_loss"),
)


class Estimate(NamedTuple):
    """A mean over seeds with the half width of its 95 % t-interval; None for one seed."""

    mean: float
    half_width: float | None
    seeds: int

    @property
    def sign(self) -> int | None:
        """−1 or +1 if the interval, as it is shown, excludes zero, 0 if not, None without an interval."""
        if self.half_width is None:
            return None
        if round(abs(self.mean), DIGITS) <= round(self.half_width, DIGITS):  # −0.001 ± 0.001 is no gain to a reader
            return 0
        return 1 if self.mean > 0 else -1


class FrontierDistance(NamedTuple):
    """Vertical distance of a strategy above the frontier of its own seed; negative is a gain."""

    estimate: Estimate
    extrapolated: int  # seeds in which it is left of all constant mixtures

    @property
    def verdict(self) -> Verdict | None:
        verdicts: dict[int, Verdict] = {-1: "gain", 0: "on the frontier", 1: "loses"}
        return None if self.estimate.sign is None else verdicts[self.estimate.sign]


@dataclass(frozen=True)
class StrategySummary:
    """Results of all runs of one label; None for what does not exist."""

    label: str
    dynamic: bool  # its weights moved
    runs: dict[int, dict[str, float | None]]  # seed → metric → value
    metrics: dict[str, Estimate | None]
    differences: dict[str, Estimate | None]  # to the baseline, paired by seed
    losses: dict[str, Estimate | None]  # by domain
    loss_differences: dict[str, Estimate | None]  # by domain, to the baseline, paired by seed
    distances: dict[str, FrontierDistance | None]  # by plane


@dataclass(frozen=True)
class ComparisonSummary:
    comparison: Comparison
    strategies: dict[str, StrategySummary]  # the baseline, the frontier, then the others by name
    frontiers: dict[str, dict[int, Frontier]]  # plane → seed

    @property
    def baseline(self) -> StrategySummary:
        return self.strategies[self.comparison.baseline]

    @property
    def constant(self) -> list[StrategySummary]:
        """The mixtures of the frontier, from the least even to the most."""
        return [self.strategies[label] for label in self.comparison.frontier]

    @property
    def contenders(self) -> list[StrategySummary]:
        """Strategies that are neither the baseline nor in the frontier."""
        known = {self.comparison.baseline, *self.comparison.frontier}
        return [strategy for label, strategy in self.strategies.items() if label not in known]

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.comparison.runs})

    @property
    def families(self) -> list[str]:
        """Families of downstream tasks."""
        return sorted({family for run in self.comparison.runs for family in run.downstream})


def summarise(comparison: Comparison) -> ComparisonSummary:
    """Summarise all runs. Raises ContractError if they cannot be compared (see `check_comparison`)."""
    check_comparison(comparison)
    values = {
        label: {seed: run_metrics(comparison, run) for seed, run in runs_of(comparison, label).items()}
        for label in labels(comparison)
    }
    frontiers = {plane.name: _frontiers(comparison, values, plane) for plane in PLANES}
    strategies = {label: _strategy(comparison, values, frontiers, label) for label in values}
    return ComparisonSummary(comparison, strategies, frontiers)


def estimate(values: Iterable[float]) -> Estimate | None:
    """Return mean and 95 % t-interval; None without values."""
    found = np.array(list(values), float)
    if not found.size:
        return None
    if found.size == 1:
        return Estimate(float(found[0]), None, 1)
    half_width = _quantile(found.size - 1) * found.std(ddof=1) / math.sqrt(found.size)
    return Estimate(float(found.mean()), float(half_width), int(found.size))


def _quantile(degrees_of_freedom: int) -> float:
    """Return that of Student's t; scipy.stats, which has it too, takes a second to import in every command."""
    return float(stdtrit(degrees_of_freedom, (1 + LEVEL) / 2))


def _strategy(
    comparison: Comparison,
    values: Mapping[str, Mapping[int, dict[str, float | None]]],
    frontiers: Mapping[str, Mapping[int, Frontier]],
    label: str,
) -> StrategySummary:
    ours, runs = dict(values[label]), runs_of(comparison, label)
    baseline, baseline_runs = values[comparison.baseline], runs_of(comparison, comparison.baseline)
    losses: dict[int, Values] = {seed: run.result.final for seed, run in runs.items()}
    baseline_losses: dict[int, Values] = {seed: run.result.final for seed, run in baseline_runs.items()}
    names = list(dict.fromkeys(name for each in ours.values() for name in each))
    paired = {seed: each for seed, each in ours.items() if seed in baseline}
    return StrategySummary(
        label=label,
        dynamic=any(is_dynamic(run) for run in runs.values()),
        runs=ours,
        metrics={name: _mean(paired if name in CENSORED else ours, name) for name in names},
        differences={name: _difference(ours, baseline, name) for name in names},
        losses={name: _mean(losses, name) for name in domains(comparison)},
        loss_differences={name: _difference(losses, baseline_losses, name) for name in domains(comparison)},
        distances={plane.name: _distance(frontiers[plane.name], ours, plane) for plane in PLANES},
    )


def _mean(values: Mapping[int, Values], name: str) -> Estimate | None:
    found = [each.get(name) for each in values.values()]
    present = [value for value in found if value is not None]
    return None if name in CENSORED and len(present) < len(found) else estimate(present)


def _difference(ours: Mapping[int, Values], theirs: Mapping[int, Values], name: str) -> Estimate | None:
    """Return ours minus theirs over common seeds, so that effects of the seed on both cancel."""
    pairs = [(each.get(name), theirs[seed].get(name)) for seed, each in ours.items() if seed in theirs]
    if name in CENSORED and any(None in pair for pair in pairs):
        return None
    return estimate(one - other for one, other in pairs if one is not None and other is not None)


def _frontiers(comparison: Comparison, values: Mapping[str, Mapping[int, Values]], plane: Plane) -> dict[int, Frontier]:
    """Return a frontier per seed with all constant mixtures; with fewer it would be easier to beat."""
    frontiers = {}
    for seed in sorted({run.seed for run in comparison.runs}):
        points = [_point(values[label].get(seed, {}), plane) for label in comparison.frontier]
        complete = [point for point in points if point is not None]
        if complete and len(complete) == len(points):
            frontiers[seed] = Frontier.through(complete)
    return frontiers


def _point(values: Values, plane: Plane) -> tuple[float, float] | None:
    x, y = values.get(plane.x), values.get(plane.y)
    return None if x is None or y is None else (x, y)


def _distance(frontiers: Mapping[int, Frontier], ours: Mapping[int, Values], plane: Plane) -> FrontierDistance | None:
    found = [(frontiers[seed], point) for seed in frontiers if (point := _point(ours.get(seed, {}), plane))]
    distances = estimate(frontier.distance(*point) for frontier, point in found)
    if distances is None:
        return None
    return FrontierDistance(distances, sum(not frontier.reaches(point[0]) for frontier, point in found))
