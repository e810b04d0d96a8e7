"""Measure the fits of the laws: time against SciPy's, coverage of intervals, and the published Chinchilla fit.

`python benchmarks/scaling_law.py` draws Hoffmann et al.'s design from the published parameters;
`python benchmarks/scaling_law.py --data svg_extracted_data.csv` fits the points that Besiroglu et al. (2024)
extracted from their figure (github.com/epoch-research/analyzing-chinchilla, folder `data`; without a licence, so not
included here). Like them, it leaves out the five points of highest loss; `--keep-all` keeps them.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from velocitune_core.scaling_law import ChinchillaFit, LawName, fit_chinchilla, fit_scaling_law
from velocitune_core.scaling_law.curves import Powers
from velocitune_core.scaling_law.huber import Array, minimise_huber, objective_and_gradient

OPTIMUM = {
    "E": 1.8172,
    "A": 477.8,
    "B": 2143.4,
    "alpha": 0.3473,
    "beta": 0.3672,
}  # of the objective, from the published grid of starts
PUBLISHED = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
STANDARD_ERRORS = {"E": 0.026, "A": 124.5, "B": 1293.0, "alpha": 0.0154, "beta": 0.0206}
OUTLIERS = 5
BOOTSTRAPS = 1000
SCIPY_STARTS = 100
Points = tuple[Array, Array, Array]  # params, tokens, losses


def read_points(path: Path, *, keep_all: bool) -> Points:
    """Read the columns "Model Size", "Training Tokens" or "Training FLOP" (6·N·D), and "loss"."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Model Size"] and row["loss"]]
    params, losses = (np.array([float(row[column]) for row in rows]) for column in ("Model Size", "loss"))
    if "Training Tokens" in rows[0]:
        tokens = np.array([float(row["Training Tokens"]) for row in rows])
    else:
        tokens = np.array([float(row["Training FLOP"]) for row in rows]) / 6 / params
    kept = np.full(len(losses), True) if keep_all else losses < np.sort(losses)[-OUTLIERS]
    return params[kept], tokens[kept], losses[kept]


def drawn_points(count: int = 240) -> Points:
    """Draw points of the published law over the ranges of Hoffmann et al.'s, with noise of the size of theirs."""
    random = np.random.default_rng(0)
    params = np.exp(random.uniform(np.log(5.7e7), np.log(1.6e10), 20 * count))
    tokens = np.exp(random.uniform(np.log(1e18), np.log(3e21), 20 * count)) / 6 / params
    within = np.flatnonzero((tokens > 8e8) & (tokens < 3e11))[:count]
    params, tokens = params[within], tokens[within]
    e, a, b, alpha, beta = PUBLISHED.values()
    return params, tokens, (e + a / params**alpha + b / tokens**beta) * np.exp(0.0045 * random.laplace(size=count))


def seconds_per_start(points: Points) -> tuple[float, float]:
    """Return the time of our fit and of SciPy's L-BFGS-B per start, over every n-th start of the published grid."""
    params, tokens, losses = points
    shape, y, once = Powers(np.log(np.stack([params, tokens]))), np.log(losses), np.ones((1, len(losses)))
    grid = shape.published_starts()
    starts = grid[:: len(grid) // SCIPY_STARTS]
    bounds = list(zip(*shape.bounds, strict=True))

    def objective(theta: Array) -> tuple[float, Array]:
        fitted, jacobian = shape.curve(theta[None])
        value, gradient = objective_and_gradient(fitted - y, jacobian, once)
        return float(value[0]), gradient[0]

    begin = time.perf_counter()
    minimise_huber(shape.curve, starts, y, *shape.bounds)
    ours = time.perf_counter() - begin
    options = {"maxiter": 1000, "ftol": 1e-11, "gtol": 1e-8}
    for start in starts:
        minimize(objective, np.clip(start, *shape.bounds), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return ours / len(starts), (time.perf_counter() - begin - ours) / len(starts)


def domain_points(random: np.random.Generator, fractions: tuple[float, ...], noise: float) -> tuple[Array, Array]:
    tokens = 1.5e6 * np.array(fractions)
    return tokens, (2 + 400 * tokens**-0.4) * np.exp(noise * random.standard_normal(len(tokens)))


def seconds_of_domain_law(law: LawName) -> tuple[float, float]:
    """Return median wall and CPU time of five fits to four proxies with 1,000 resamples."""
    random, times = np.random.default_rng(0), []
    for _ in range(5):
        tokens, losses = domain_points(random, (0.1, 0.17, 0.28, 0.45), noise=0.003)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        fit_scaling_law(tokens, losses, law=law, initial_loss=5.0, bootstrap=BOOTSTRAPS)
        times.append((time.perf_counter() - begin, time.process_time() - begin_cpu))
    wall, cpu = np.median(times, axis=0)
    return float(wall), float(cpu)


def coverage(fractions: tuple[float, ...], runs: int = 100) -> float:
    """Return how often the 95 % interval at the full budget contains the loss of a new run with 0.3 % noise."""
    random, held = np.random.default_rng(1), 0
    for run in range(runs):
        tokens, losses = domain_points(random, fractions, noise=0.003)
        interval = fit_scaling_law(tokens, losses, bootstrap=200, seed=run).interval(1.5e6, 0.95)
        assert interval is not None
        held += interval[0] <= domain_points(random, (1.0,), noise=0.003)[1][0] <= interval[1]
    return held / runs


def print_fit(console: Console, fit: ChinchillaFit, source: str) -> None:
    table = Table("parameter", "fitted", "grid optimum", "published", "standard error", "published", title=source)
    for name, optimum in OPTIMUM.items():
        mine = (getattr(fit, name), optimum, PUBLISHED[name], fit.standard_errors[name], STANDARD_ERRORS[name])
        table.add_row(name, *(f"{value:.4f}" if value < 10 else f"{value:.1f}" for value in mine))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the points of Hoffmann et al.'s figure 4, as CSV")
    parser.add_argument("--keep-all", action="store_true", help="keep the five points of highest loss")
    arguments = parser.parse_args()
    console = Console()
    points = read_points(arguments.data, keep_all=arguments.keep_all) if arguments.data else drawn_points()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    fit = fit_chinchilla(*points, bootstrap=BOOTSTRAPS)
    whole, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    source = arguments.data.name if arguments.data else "drawn from the published parameters"
    print_fit(console, fit, f"{len(points[0])} points, {source}")

    ours, scipys = seconds_per_start(points)
    table = Table("what", "measured", "limit")
    table.add_row("4,500 starts and 1,000 resamples, 240 points", f"{whole:.1f} s ({cpu:.1f} s of CPU)", "30 s")
    table.add_row("one start, ours", f"{ours * 1e3:.1f} ms")
    table.add_row("one start, SciPy's L-BFGS-B", f"{scipys * 1e3:.1f} ms ({scipys / ours:.0f} times ours)")
    laws: tuple[LawName, ...] = ("chinchilla", "anchored")
    for law in laws:
        wall, cpu = seconds_of_domain_law(law)
        table.add_row(f"a domain's {law} law and 1,000 resamples", f"{wall:.2f} s ({cpu:.2f} s of CPU)", "1 s")
    for fractions in ((0.1, 0.17, 0.28, 0.45), (0.1, 0.15, 0.22, 0.33, 0.5), (0.1, 0.1, 0.25, 0.25, 0.5, 0.5)):
        name = f"95 % interval of {len(fractions)} points covers a new run"
        table.add_row(name, f"{coverage(fractions):.0%}", "95 %")
    console.print(table)


if __name__ == "__main__":
    main()
