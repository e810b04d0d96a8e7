"""Compare regions of mixtures in which an optimum may lie, and rules that choose among the optima of a bootstrap.

`python benchmarks/trust_region.py --data DIR` fits a law to some runs of a swarm, optimises within each region, and
reads the result off a law of all runs of that swarm. Files: see benchmarks/mixture_data.py. Per region and rule it
prints the average against static training, its worst over the draws, and by how much the small law promised more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mixture_data import Array, Swarm, embedded, regmix
from rich.console import Console
from rich.table import Table

from velocitune_core.mixture_law.constrained import solve
from velocitune_core.mixture_law.feasibility import feasible_start
from velocitune_core.mixture_law.guarded_problem import Law, Losses, Problem, Terms
from velocitune_core.mixture_law.law import fit_mixture_law
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.optimise import MeanLaw
from velocitune_core.mixture_law.references import temperature
from velocitune_core.mixture_law.share_bounds import ShareBounds
from velocitune_core.mixture_law.support import Support

RESAMPLES = 16
LEAST_LOG = 3e-3  # added to weights before logarithms
BY_SIZE_GUARD = 0.005  # nats
Solver = Callable[[Losses, Terms], Array | None]


@dataclass(frozen=True)
class Ball:
    """Mixtures whose distance is at most a share of the outermost run's; in place of `Support`."""

    low: Array
    high: Array
    centre: Array
    squared: Callable[[Array], float]
    gradient: Callable[[Array], Array]
    most: float

    def excess(self, weights: Array) -> float:
        return self.squared(weights) / self.most - 1

    def excess_gradient(self, weights: Array) -> Array:
        return self.gradient(weights) / self.most


def kl_ball(runs: Array, share: float) -> Ball:
    """Kullback-Leibler divergence from the runs' mean."""
    mean, k = runs.mean(axis=0), runs.shape[1]

    def divergence(weights: Array) -> float:
        positive = np.maximum(weights, 1e-9)
        return float((positive * np.log(positive / mean)).sum())

    most = share * max(divergence(run) for run in runs)
    return Ball(
        np.zeros(k), np.ones(k), mean, divergence, lambda weights: np.log(np.maximum(weights, 1e-9) / mean) + 1, most
    )


def log_ratio_ball(runs: Array, share: float) -> Ball:
    """Mahalanobis' distance in centred logarithms of the weights."""

    def ratios(weights: Array) -> Array:
        logs = np.log(np.maximum(weights, 0) + LEAST_LOG)
        return logs - logs.mean(axis=-1, keepdims=True)

    region, k = Support.around(ratios(runs)), runs.shape[1]

    def squared(weights: Array) -> float:
        return region.excess(ratios(weights)) + region.reach**2

    def gradient(weights: Array) -> Array:
        slope = region.excess_gradient(ratios(weights))
        return (slope - slope.mean()) / (np.maximum(weights, 0) + LEAST_LOG)

    return Ball(np.zeros(k), np.ones(k), runs.mean(axis=0), squared, gradient, share**2)


@dataclass(frozen=True)
class Blend:
    """A law in the shares of the runs in a blend of their mixtures: the convex hull of the runs."""

    law: Losses
    runs: Array

    def losses(self, weights: Array) -> Array:
        return self.law.losses(weights @ self.runs)

    def jacobian(self, weights: Array) -> Array:
        return self.law.jacobian(weights @ self.runs) @ self.runs.T


def everywhere(domains: int) -> Support:
    """Return the whole simplex: no limit."""
    centre = np.full(domains, 1 / domains)
    return Support(np.zeros(domains), np.ones(domains), centre, np.zeros((domains, domains)))


def within(region: Support | Ball) -> Solver:
    def best(law: Losses, terms: Terms) -> Array | None:
        problem = Problem(law, terms, region)  # pyrefly: ignore
        try:
            return solve(problem, [feasible_start(problem)]).weights
        except ObjectiveError:
            return None

    return best


def within_hull(runs: Array) -> Solver:
    def best(law: Losses, terms: Terms) -> Array | None:
        static = law.losses(terms.static)
        guards = tuple(replace(guard, initial=float(guard.shares @ static)) for guard in terms.guards)
        names = tuple(map(str, range(len(runs))))
        bounds = tuple(ShareBounds(name, 0.0, 1.0, "", 0.0) for name in names)
        blended = replace(terms, domains=names, guards=guards, bounds=bounds, static=None)
        found = within(everywhere(len(runs)))(Blend(law, runs), blended)
        return None if found is None else found @ runs

    return best


def regions(runs: Array) -> Iterator[tuple[str, Solver]]:
    support, k = Support.around(runs), runs.shape[1]
    wide = replace(support, low=np.zeros(k), high=np.ones(k))
    yield "none", within(everywhere(k))
    yield "range of each domain", within(replace(everywhere(k), low=support.low, high=support.high))
    yield "KL ball", within(kl_ball(runs, 1.0))
    yield "KL ball, half", within(kl_ball(runs, 0.5))
    yield "log-ratio ellipsoid", within(log_ratio_ball(runs, 1.0))
    yield "log-ratio ellipsoid, 0.7", within(log_ratio_ball(runs, 0.7))
    yield "convex hull", within_hull(runs)
    yield "ellipsoid", within(replace(wide, reach=1.0))
    for reach in (1.0, 0.7, 0.5):
        yield f"ellipsoid and range, {reach}", within(replace(support, reach=reach))


def chosen(law: Law, terms: Terms, solver: Solver) -> Iterator[tuple[str, Array]]:
    """Yield the mixture of each rule; those that no rule finds are left out."""
    laws = [law.resampled(index) for index in range(law.resamples)]
    found = {"optimum of the law": solver(law, terms), "least mean regret": solver(MeanLaw(law, tuple(laws)), terms)}
    optima = [(each, best) for each in laws if (best := solver(each, terms)) is not None]
    if optima:
        mean = found["mean of optima"] = np.mean([best for _, best in optima], axis=0)
        candidates = np.array([w for w in [*found.values(), *(best for _, best in optima)] if w is not None])
        candidates = np.vstack([candidates, (candidates + mean) / 2])
        regrets = np.array([(each.losses(candidates) - each.losses(best)) @ terms.average for each, best in optima])
        broken = np.zeros(len(candidates))
        for guard in terms.guards:
            excess = [
                (each.losses(candidates) - each.losses(terms.static)) @ guard.shares - guard.limit for each, _ in optima
            ]
            broken = np.maximum(broken, np.mean(excess, axis=0))
        badness = np.quantile(regrets, 0.9, axis=0) + 1e3 * np.maximum(broken - 1e-4, 0)
        found["least 90 % regret"] = candidates[badness.argmin()]
    yield from ((name, weights) for name, weights in found.items() if weights is not None)


def near_temperatures(swarm: Swarm, initial: Array, count: int) -> Array:
    """Return the runs nearest to the line of temperatures, in total variation."""
    line = np.array([temperature(initial, t) for t in np.geomspace(0.8, 20, 60)])
    return np.abs(swarm.weights[:, None] - line).sum(axis=-1).min(axis=1).argsort()[:count]


def compare(swarm: Swarm, truth: Law, initial: Array, guard: float | None, draws: list[Array], title: str) -> Table:
    """Return the table of one experiment; each draw holds the rows of the runs that are fitted."""
    weights0 = dict(zip(swarm.domains, initial, strict=True))
    guards = {} if guard is None else {"by_size": guard}
    objective = Objective(initial_weights=weights0, averages_worse_than_static=guards)
    terms = Terms.of(objective, swarm.domains, swarm.sets)
    sizes = np.array(list(objective.average_shares("by_size", swarm.domains, swarm.sets).values()))
    results: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for rows in draws:
        part = swarm.part(rows)
        law = fit_mixture_law(*part.columns(), bootstrap=RESAMPLES)
        for region, solver in regions(part.weights):
            for rule, mixture in chosen(law, terms, solver):
                reached = truth.losses(mixture) - truth.losses(initial)
                promised = law.losses(mixture) - law.losses(initial)
                gap = float((reached - promised) @ terms.average)
                results.setdefault((region, rule), []).append(
                    (float(reached @ terms.average), float(reached @ sizes), gap)
                )
    table = Table("region", "rule", "macro", "worst", "by size", "worst", "promised too much", title=title)
    for (region, rule), found in results.items():
        macro, size, gap = np.array(found).T
        row = (macro.mean(), macro.max(), size.mean(), size.max(), gap.mean())
        table.add_row(region, rule, *(f"{value:+.4f}" for value in row))
    return table


def main() -> None:
    """Print a table per swarm, number of runs and objective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--draws", type=int, default=6, help="subsets of runs per experiment")
    parser.add_argument("--only", choices=["embedded", "regmix"])
    arguments = parser.parse_args()
    console, random = Console(width=140), np.random.default_rng(0)
    if arguments.only != "regmix":
        swarm, full = embedded(arguments.data, "swarm-0_25"), embedded(arguments.data, "full")
        initial, truth = full.weights[full.names.index("static-seed-1")], fit_mixture_law(*swarm.columns())
        for guard in (None, BY_SIZE_GUARD):
            asked = "macro" if guard is None else f"macro, by size ≤ {guard:+}"
            for count in (12, 16):
                drawn = [random.choice(len(swarm.names), count, replace=False) for _ in range(arguments.draws)]
                console.print(compare(swarm, truth, initial, guard, drawn, f"embedded, {count} random runs: {asked}"))
            line = [near_temperatures(swarm, initial, 12)]
            console.print(compare(swarm, truth, initial, guard, line, f"embedded, 12 runs near one line: {asked}"))
    if arguments.only != "embedded":
        train, test = regmix(arguments.data, "train"), regmix(arguments.data, "test")
        everything = Swarm(
            train.domains,
            train.sets,
            np.vstack([train.weights, test.weights]),
            np.vstack([train.losses, test.losses]),
            train.names + test.names,
        )
        truth, initial = fit_mixture_law(*everything.columns()), train.weights.mean(axis=0)
        for count in (40, 64):
            drawn = [random.choice(len(train.names), count, replace=False) for _ in range(arguments.draws)]
            console.print(compare(train, truth, initial, None, drawn, f"RegMix 1 M, {count} random runs: macro"))


if __name__ == "__main__":
    main()
