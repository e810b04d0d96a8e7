"""Measure the laws of the mixture: error on mixtures that were left out, and on runs of the full budget.

`python benchmarks/mixture_law.py --data DIR` reads what is there of RegMix's runs of 1 M parameters and of
`embedded-swarm.json`, and takes half a minute on one core without LightGBM. benchmarks/mixture_data.py says which files
those are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from full_budget import full_budget_table
from mixture_data import Array, Swarm, regmix
from rich.console import Console
from rich.table import Table

from velocitune_core.mixture_law import fit_mixture_law
from velocitune_core.mixture_law.evidence import rank_correlation
from velocitune_core.mixture_law.law import LawName

Predictor = Callable[[Swarm, Array, Array], Array]  # runs, indices of those fitted, weights (M, K) → losses (M, I)
SIZES, SEEDS = (32, 64, 128, 256, 512), 5


def by_law(law: LawName, *, residual: bool = False) -> Predictor:
    """Return the predictor of one of the project's laws."""

    def predict(runs: Swarm, rows: Array, weights: Array) -> Array:
        fit = fit_mixture_law(*runs.part(rows).columns(), law=law, residual=residual)
        found = fit.predict(dict(zip(runs.domains, weights.T, strict=True)))
        return np.stack([found[name] for name in runs.sets], axis=1)

    return predict


def regression(runs: Swarm, rows: Array, weights: Array) -> Array:
    """Predict by ordinary least squares in the weights, which sum to 1, so that the constant is among them."""
    return weights @ np.linalg.lstsq(runs.weights[rows], runs.losses[rows], rcond=None)[0]


def lightgbm(runs: Swarm, rows: Array, weights: Array) -> Array:
    """Predict with RegMix's own model: a gradient-boosted tree per set, its published settings."""
    import lightgbm as trees

    found = []
    for losses in runs.losses[rows].T:
        model = trees.LGBMRegressor(
            n_estimators=1000, learning_rate=0.01, num_leaves=31, reg_lambda=0.1, n_jobs=1, verbose=-1, random_state=42
        )
        found.append(model.fit(runs.weights[rows], losses).predict(weights))
    return np.stack(found, axis=1)


def predictors() -> dict[str, Predictor | None]:
    """Return the predictors by name; None for one that is not installed."""
    try:
        import lightgbm as _  # noqa: F401

        trees: Predictor | None = lightgbm
    except ImportError:
        trees = None
    return {
        "transfer": by_law("transfer"),
        "transfer, residual process": by_law("transfer", residual=True),
        "loglinear": by_law("loglinear"),
        "bimix": by_law("bimix"),
        "LightGBM": trees,
        "ordinary regression": regression,
    }


def regmix_table(folder: Path, sizes: tuple[int, ...]) -> Table:
    """Return mean squared error, rank correlation and time by predictor and number of runs."""
    training, test = regmix(folder, "train"), regmix(folder, "test")
    assert training.domains == test.domains and training.sets == test.sets
    table = Table(
        title=f"RegMix, {len(test.weights)} test mixtures, {len(test.sets)} sets: mean squared error "
        f"(largest of the subsets), mean Spearman, seconds; random subsets of seeds 0 to {SEEDS - 1}"
    )
    table.add_column("law")
    for size in sizes:
        table.add_column(f"{size} runs")
    for name, predict in predictors().items():
        cells = ["not installed" if predict is None else _cell(predict, training, test, size) for size in sizes]
        table.add_row(name, *cells)
    return table


def _cell(predict: Predictor, training: Swarm, test: Swarm, size: int) -> str:
    errors, ranks, begin = [], [], time.process_time()
    whole = size >= len(training.weights)
    for seed in range(1 if whole else SEEDS):
        rows = np.random.default_rng(seed).permutation(len(training.weights))[:size]
        predicted = predict(training, rows, test.weights)
        errors.append(((predicted - test.losses) ** 2).mean())
        pairs = zip(predicted.T, test.losses.T, strict=True)
        ranks.append(np.mean([rank_correlation(*pair) or 0.0 for pair in pairs]))
    seconds = (time.process_time() - begin) / len(errors)
    return f"{np.mean(errors):.4f} ({max(errors):.4f}) {np.mean(ranks):.3f} {seconds:.1f} s"


def main() -> None:
    """Print the tables of docs/MIXTURES.md for the data that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with RegMix's files, embedded-swarm.json or both"
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="numbers of RegMix runs")
    options = parser.parse_args()
    console = Console(width=200)
    found = False
    if (options.data / "regmix" / "train_mixture_1m.csv").is_file():
        found = True
        console.print(regmix_table(options.data, tuple(options.sizes)))
    if (options.data / "embedded-swarm.json").is_file():
        found = True
        for table in full_budget_table(options.data):
            console.print(table)
    if not found:
        parser.error(f"{options.data} holds neither RegMix's files nor embedded-swarm.json; see --help")


if __name__ == "__main__":
    main()
