"""What proxies are worth: error of the targets against the tokens spent on them: `python benchmarks/proxies.py`.

Run it in a workspace whose stages up to `initial` are up to date. It trains proxies of every size in FRACTIONS and the
whole run under static weights (those that are there are not trained again; 4.5 runs' worth of tokens in all), fits the
targets of several sets of proxies, and compares them with what the whole run then reached.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.runs.budget import token_budget
from tasks.runs.compared import side_by_side
from tasks.runs.devices import parallel_runs
from tasks.runs.jobs import proxy_jobs
from tasks.runs.launch import run_training
from tasks.workspace import paths
from velocitune_core.config import Params, load_params
from velocitune_core.contracts import InitialLosses, Manifest, TrainResult
from velocitune_core.scaling_law import ScalingLawError, fit_scaling_law

FRACTIONS = [0.08, 0.12, 0.16, 0.2, 0.25, 0.28, 0.3, 0.38, 0.45, 0.5, 0.6, 1.0]  # the last is the run itself
SETS = [
    (0.08, 0.12, 0.16), (0.08, 0.12, 0.2), (0.08, 0.12, 0.16, 0.2), (0.08, 0.16, 0.3), (0.08, 0.12, 0.16, 0.25),
    (0.08, 0.12, 0.2, 0.3), (0.08, 0.12, 0.2, 0.38), (0.08, 0.12, 0.2, 0.45), (0.12, 0.16, 0.25, 0.45),
    (0.12, 0.2, 0.28, 0.38), (0.08, 0.12, 0.25, 0.5), (0.12, 0.38, 0.5), (0.12, 0.28, 0.6), (0.08, 0.12, 0.2, 0.6),
]  # fmt: skip
LAWS = ("chinchilla", "anchored")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, help="write the trade-off as a PNG")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    params = side_by_side(load_params(paths.PARAMS))
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    runs = trained(params, manifest, arguments.seed)
    budget = token_budget(params, manifest)
    rows = [
        (fractions, law, errors([runs[each] for each in fractions], law, initial.losses, runs[1.0], budget))
        for fractions in SETS
        for law in LAWS
    ]
    show(rows)
    if arguments.figure:
        draw(rows, arguments.figure)


def trained(params: Params, manifest: Manifest, seed: int) -> dict[float, TrainResult]:
    """Fraction → its run under static weights."""
    proxies = params.proxies.model_copy(update={"fractions": FRACTIONS, "seeds": [seed]})
    jobs = proxy_jobs(params.model_copy(update={"proxies": proxies}), manifest)
    with ThreadPoolExecutor(parallel_runs(params.resources)) as pool:
        results = pool.map(lambda job: run_training(job, params.resources), reversed(jobs))  # the longest first
        return dict(zip(reversed(FRACTIONS), results, strict=True))


def errors(
    proxies: Sequence[TrainResult], law: str, initial: dict[str, float], whole: TrainResult, budget: int
) -> dict[str, float]:
    """(target − reached) / reached per domain; a domain that the law does not fit is left out."""
    found = {}
    for name, reached in whole.final.items():
        tokens, losses = [run.tokens for run in proxies], [run.final[name] for run in proxies]
        start = initial[name] if law == "anchored" else None
        try:
            fit = fit_scaling_law(tokens, losses, law=law, initial_loss=start)
        except ScalingLawError:  # losses above the initial one, which no anchored law goes through
            continue
        found[name] = float(fit.predict(budget)) / reached - 1
    return found


def show(rows: Sequence[tuple[Sequence[float], str, dict[str, float]]]) -> None:
    names = list(rows[0][2])
    table = Table("proxies", "tokens", "law", "median", "largest", *names, title="(target − reached) / reached, in %")
    for fractions, law, found in rows:
        sizes = np.abs(list(found.values()))
        cells = [f"{100 * found[name]:+.1f}" if name in found else "–" for name in names]
        sets = ", ".join(f"{each:g}" for each in fractions)
        table.add_row(sets, f"{sum(fractions):.0%}", law, f"{np.median(sizes):.2%}", f"{sizes.max():.1%}", *cells)
    Console(width=160).print(table)


def draw(rows: Sequence[tuple[Sequence[float], str, dict[str, float]]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for law, colour, marker, shift in zip(LAWS, ("#0072b2", "#d55e00"), "os", (-0.004, 0.004), strict=True):
        chosen = [(sum(fractions), np.abs(list(found.values()))) for fractions, each, found in rows if each == law]
        tokens = np.array([share for share, _ in chosen]) + shift
        medians = np.array([100 * np.median(sizes) for _, sizes in chosen])
        largest = np.array([100 * sizes.max() for _, sizes in chosen])
        axes.vlines(tokens, medians, largest, color=colour, alpha=0.35, linewidth=1.5)
        axes.plot(tokens, medians, marker, color=colour, label=f"{law}: median, line up to the worst domain")
    axes.axhline(1.0, color="#777777", linestyle=":", linewidth=1)
    axes.set(
        xlabel="tokens of all proxies, as a share of the whole run's",
        ylabel="|target − reached| / reached, %",
        yscale="log",
        title="What proxies cost, and how far off their targets are",
    )
    ticks = [0.5, 1, 2, 5, 10]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(0.3, 15)
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
