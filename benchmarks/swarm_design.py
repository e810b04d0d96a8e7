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
from velocitune_core.mixture_law import Objective, design_swarm, fit_mixture_law, optimise_mixture, swarm_design
from velocitune_core.mixture_law.objective import ObjectiveError
from velocitune_core.mixture_law.support import weights_by_name

RUNS = (14, 20)
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


DESIGNS: dict[str, Design] = {
    **{f"Dirichlet, α {alpha}": dirichlet(alpha, 1) for alpha in (1.0, 1.5, 2.5, 4.0)},
    **{f"low discrepancy, α {alpha}": low_discrepancy(alpha) for alpha in (1.5, 2.5)},
    **{f"farthest of 8, α {alpha}": dirichlet(alpha, 8) for alpha in (1.0, 1.5, 2.5)},
}


def main() -> None:
    """Print a table per objective."""
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
                columns = (dict(zip(swarm.domains, table.T, strict=True)) for table in (weights, drawn))
                law = fit_mixture_law(*columns)
                for asked, objective in objectives.items():
                    try:
                        best = np.array(list(optimise_mixture(law, objective).weights.values()))
                    except ObjectiveError:
                        best = static
                    gap = truth.losses(best) - truth.losses(static)
                    results.setdefault((asked, name, runs), []).append((float(gap.mean()), float(gap @ static)))
    for asked in objectives:
        table = Table("design", "runs", "macro", "worst", "by size", "worst", title=asked)
        for (_, name, runs), found in ((k, v) for k, v in results.items() if k[0] == asked):
            macro, size = np.array(found).T
            table.add_row(name, str(runs), *(f"{x:+.4f}" for x in (macro.mean(), macro.max(), size.mean(), size.max())))
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
