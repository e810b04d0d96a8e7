"""Compare designs of a swarm by the optimum that they lead to.

`python benchmarks/swarm_design.py --data DIR` takes the law of `embedded-swarm.json`'s runs at a quarter of the budget
as the truth. Each design's runs get losses of that law with its noise, a law is fitted to them, and the optimum of
that law is read off the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mixture_data import Array, embedded
from rich.console import Console
from rich.table import Table
from scipy.special import gammaincinv

from velocitune_core.mixture.permutation import key
from velocitune_core.mixture_law import (
    Objective,
    design_swarm,
    fit_mixture_law,
    next_round,
    optimise_mixture,
    swarm_design,
)
from velocitune_core.mixture_law.law import MixtureLaw
from velocitune_core.mixture_law.objective import ObjectiveError
from velocitune_core.mixture_law.support import weights_by_name

RUNS = (14, 20)
TOLERANCES = (0.01, 0.005, 0.003, 0.0)
Design = Callable[[dict[str, float], int, int], Array]  # initial weights, runs, seed → weights (R, K), names sorted


def dirichlet(concentration: float, candidates: int) -> Design:
    def design(initial: dict[str, float], runs: int, seed: int) -> Array:
        swarm_design.CONCENTRATION, swarm_design.CANDIDATES = concentration, candidates
        return weights_by_name(design_swarm(initial, runs=runs, seed=seed), sorted(initial))

    return design


def low_discrepancy(concentration: float) -> Design:
    """Equidistant steps around a circle for every domain, of a width and from a start that its name decides."""

    def design(initial: dict[str, float], runs: int, seed: int) -> Array:
        names = sorted(initial)
        centre = np.sqrt([initial[name] for name in names])
        alphas, columns = concentration * len(names) * centre / centre.sum(), []
        for alpha, name in zip(alphas, names, strict=True):
            start, width = np.random.default_rng(int(key(seed, name, "circle"))).random(2)
            columns.append(gammaincinv(alpha, np.clip((start + width * np.arange(runs)) % 1, 1e-6, 1 - 1e-6)))
        draws = np.column_stack(columns)
        return 0.01 + (1 - 0.01 * len(names)) * draws / draws.sum(axis=1, keepdims=True)

    return design


COMMITTED = swarm_design.CONCENTRATION, swarm_design.CANDIDATES
DESIGNS: dict[str, Design] = {
    **{f"Dirichlet, α {alpha}": dirichlet(alpha, 1) for alpha in (1.0, 1.5, 2.5, 4.0)},
    **{f"low discrepancy, α {alpha}": low_discrepancy(alpha) for alpha in (1.5, 2.5)},
    **{f"farthest of 8, α {alpha}": dirichlet(alpha, 8) for alpha in (1.0, 1.5, 2.5)},
}


def rounds(truth: MixtureLaw, static: Array, objective: Objective, seeds: int) -> Table:
    """Return what six further runs after ten bring: of the same design, or chosen by `next_round`."""
    initial = dict(zip(truth.domains, static, strict=True))
    results: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        whole = np.vstack([static, weights_by_name(design_swarm(initial, runs=16, seed=seed), truth.domains)])
        losses = truth.losses(whole) + random.normal(size=whole.shape) * truth.noise
        law = fitted(truth, whole[:11], losses[:11], bootstrap=40)
        plan = optimise_mixture(law, objective)
        further = next_round(law, plan, objective, runs=6, tolerance=0.0).weights
        more = weights_by_name(further, truth.domains)
        measured = truth.losses(more) + random.normal(size=more.shape) * truth.noise
        chosen = fitted(truth, np.vstack([whole[:11], more]), np.vstack([losses[:11], measured]), bootstrap=40)
        plans = {
            "10 runs": plan,
            "16 of the design": optimise_mixture(fitted(truth, whole, losses, bootstrap=40), objective),
            "10, and 6 by next_round": optimise_mixture(chosen, objective),
        }
        for name, each in plans.items():
            gap = truth.losses(np.array(list(each.weights.values()))) - truth.losses(static)
            results.setdefault(name, []).append((float(gap.mean()), float(gap @ static), each.regret.high))
    table = Table("runs, and w₀", "macro", "worst", "by size", "regret, 97.5 %", title="rounds")
    for name, found in results.items():
        macro, size, regret = np.array(found).T
        table.add_row(name, *(f"{x:+.4f}" for x in (macro.mean(), macro.max(), size.mean(), regret.mean())))
    return table


def stopped(truth: MixtureLaw, static: Array, objective: Objective, seeds: int, tolerances: tuple[float, ...]) -> Table:
    """Return what swarms that begin with ten runs and go on by four reach, and when they end; at most 20 runs."""
    initial = dict(zip(truth.domains, static, strict=True))
    results: dict[float, list[tuple[float, float, float]]] = {}
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        weights = np.vstack([static, weights_by_name(design_swarm(initial, runs=10, seed=seed), truth.domains)])
        losses = truth.losses(weights) + random.normal(size=weights.shape) * truth.noise
        left = list(tolerances)
        while left:
            law = fitted(truth, weights, losses, bootstrap=100)
            plan = optimise_mixture(law, objective)
            spare = 21 - len(weights)
            gap = truth.losses(np.array(list(plan.weights.values()))) - truth.losses(static)
            for tolerance in [each for each in left if not spare or plan.regret.high <= each]:
                results.setdefault(tolerance, []).append((len(weights) - 1, float(gap.mean()), float(gap @ static)))
                left.remove(tolerance)
            if left:
                chosen = next_round(law, plan, objective, runs=min(4, spare), tolerance=0.0).weights
                more = weights_by_name(chosen, truth.domains)
                measured = truth.losses(more) + random.normal(size=more.shape) * truth.noise
                weights, losses = np.vstack([weights, more]), np.vstack([losses, measured])
    table = Table("tolerance", "runs and w₀, mean", "fewest, most", "macro", "worst", "by size", title="ended by")
    for tolerance, found in sorted(results.items(), reverse=True):
        runs, macro, size = np.array(found).T
        figures = (f"{x:+.4f}" for x in (macro.mean(), macro.max(), size.mean()))
        table.add_row(f"{tolerance:g}", f"{runs.mean():.1f}", f"{runs.min():.0f}, {runs.max():.0f}", *figures)
    return table


def fitted(truth: MixtureLaw, weights: Array, losses: Array, *, bootstrap: int = 0) -> MixtureLaw:
    """Return the law of some runs."""
    columns = (dict(zip(truth.domains, table.T, strict=True)) for table in (weights, losses))
    return fit_mixture_law(*columns, bootstrap=bootstrap)


def main() -> None:
    """Print a table per objective, of designs and of rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=8)
    arguments = parser.parse_args()
    swarm, full = embedded(arguments.data, "swarm-0_25"), embedded(arguments.data, "full")
    truth = fit_mixture_law(*swarm.columns())
    static = full.weights[full.names.index("static-seed-1")]
    initial, noise = dict(zip(swarm.domains, static, strict=True)), truth.noise
    objectives = {
        "macro": Objective(initial_weights=initial),
        "macro, by size ≤ 0": Objective(initial_weights=initial, averages_worse_than_static={"by_size": 0.0}),
    }
    results: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):
        for runs in RUNS:
            for name, design in DESIGNS.items():
                weights = np.vstack([design(initial, runs, seed), static])
                drawn = truth.losses(weights) + np.random.default_rng([seed, runs]).normal(size=weights.shape) * noise
                law = fitted(truth, weights, drawn)
                for asked, objective in objectives.items():
                    try:
                        best = np.array(list(optimise_mixture(law, objective).weights.values()))
                    except ObjectiveError:
                        best = static
                    gap = truth.losses(best) - truth.losses(static)
                    results.setdefault((asked, name, runs), []).append((float(gap.mean()), float(gap @ static)))
    for asked, objective in objectives.items():
        table = Table("design", "runs", "macro", "worst", "by size", "worst", title=asked)
        for (_, name, runs), found in ((k, v) for k, v in results.items() if k[0] == asked):
            macro, size = np.array(found).T
            table.add_row(name, str(runs), *(f"{x:+.4f}" for x in (macro.mean(), macro.max(), size.mean(), size.max())))
        Console(width=110).print(table)
        swarm_design.CONCENTRATION, swarm_design.CANDIDATES = COMMITTED
        Console(width=110).print(rounds(truth, static, objective, arguments.seeds))
        Console(width=110).print(stopped(truth, static, objective, arguments.seeds, TOLERANCES))


if __name__ == "__main__":
    main()
