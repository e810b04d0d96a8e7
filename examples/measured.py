"""Measure methods over seeds: each tuned with the same number of settings on other seeds, compared seed by seed."""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from velocitune_core.comparison.statistics import Estimate, estimate
from velocitune_core.style import figure as style

OURS = "velocitune"
TUNING_SEEDS = (101, 102, 103)
TUNED = Path(__file__).with_name("tuned.json")  # use → method → the settings that `--tune` found
DOCS = Path(__file__).parents[1] / "docs"
Scores = dict[str, float]


@dataclass(frozen=True)
class Metric:
    """A number of one run; the first of a use decides the tuning."""

    name: str
    higher_is_better: bool = False
    format: str = ".3f"
    drawn: bool = False  # in the figure, and with its difference to each method in the second table


@dataclass(frozen=True)
class Use:
    """What is compared: `run(method, seed=…, tuning=…, **settings)` returns a value for every metric.

    Under `tuning` they are of validation data, else of test data, which no training and no tuning may see; docs/USES.md
    names the exceptions.
    """

    name: str
    title: str
    run: Callable[..., Scores]
    grids: Mapping[str, Sequence[Mapping[str, Any]]]  # method → the settings that are tried
    metrics: Sequence[Metric]


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return all combinations of the values."""
    settings: list[dict[str, Any]] = [{}]
    for name, choices in values.items():
        settings = [{**one, name: choice} for one in settings for choice in choices]
    return settings


def main(use: Use) -> None:
    """Tune, or measure with the tuned settings; print the tables, and keep them with `--docs`."""
    parser = argparse.ArgumentParser(description=use.title)
    parser.add_argument("--tune", action="store_true", help=f"choose the settings of all methods anew: {TUNED.name}")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--docs", action="store_true", help="write results, figure and tables into docs/")
    parser.add_argument("--redraw", action="store_true", help="like --docs, from the results that are there")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.tune:
        tune(use)
    else:
        scores = read_results(use) if options.redraw else measure(use, range(options.seeds))
        if options.docs:
            write_results(use, scores)
            scores = read_results(use)  # rounded, so that tables are the same when they are redrawn
        tables = "\n\n".join([table(use, scores), differences(use, scores)])
        print(tables)
        if options.docs or options.redraw:
            draw(use, scores).savefig(DOCS / "figures" / f"use_{use.name}.png", dpi=110)
            write_tables(use, tables)
    print(f"\n{time.perf_counter() - started:.0f} s")


def tune(use: Use) -> dict[str, Any]:
    """Run every setting of every method on the tuning seeds, and store the best by the first metric."""
    first = use.metrics[0]
    jobs = [
        (method, {**settings, "seed": seed, "tuning": True})
        for method, grid_ in use.grids.items()
        for settings in grid_
        for seed in TUNING_SEEDS
    ]
    values = iter([scores[first.name] for scores in _run_all(use, jobs)])
    best: dict[str, Any] = {}
    for method, grid_ in use.grids.items():
        means = [sum(next(values) for _ in TUNING_SEEDS) / len(TUNING_SEEDS) for _ in grid_]
        chosen = (max if first.higher_is_better else min)(range(len(means)), key=means.__getitem__)
        best[method] = dict(grid_[chosen])
        print(f"{method}: {best[method]}, {first.name} {means[chosen]:.4f} of {len(means)} settings")
        print("   ", " ".join(f"{mean:.4f}" for mean in means))
    everything = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    TUNED.write_text(json.dumps({**everything, use.name: best}, indent=1) + "\n")
    return best


def measure(use: Use, seeds: Sequence[int]) -> dict[str, list[Scores]]:
    """Return the test scores of every method, one per seed, with its tuned settings."""
    tuned = json.loads(TUNED.read_text())[use.name]
    jobs = [(method, {**tuned[method], "seed": seed, "tuning": False}) for method in use.grids for seed in seeds]
    results = _run_all(use, jobs)
    return {method: [next(results) for _ in seeds] for method in use.grids}


def _run_all(use: Use, jobs: Sequence[tuple[str, dict[str, Any]]]) -> Any:
    """Return an iterator over the scores of all jobs, in order; one process per core, one thread each."""
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), initializer=partial(torch.set_num_threads, 1)) as pool:
        return iter(list(pool.map(partial(_run, use.run), jobs, chunksize=2)))


def _run(run: Callable[..., Scores], job: tuple[str, dict[str, Any]]) -> Scores:
    method, settings = job
    return run(method, **settings)


def table(use: Use, scores: Mapping[str, Sequence[Scores]]) -> str:
    """Return means and 95 % t-intervals of every metric as Markdown."""
    rows = ["| | " + " | ".join(metric.name for metric in use.metrics) + " |", "|---|" + "---|" * len(use.metrics)]
    for method, runs in scores.items():
        cells = [_interval(_estimate(metric, runs), metric) for metric in use.metrics]
        rows.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def differences(use: Use, scores: Mapping[str, Sequence[Scores]]) -> str:
    """Return ours minus every other method, seed by seed, and whether the interval leaves zero out, as Markdown."""
    drawn = [metric for metric in use.metrics if metric.drawn]
    rows = [f"| {OURS} minus | " + " | ".join(metric.name for metric in drawn) + " |", "|---|" + "---|" * len(drawn)]
    for method, runs in scores.items():
        if method != OURS:
            paired = [{name: ours[name] - other[name] for name in ours} for ours, other in zip(scores[OURS], runs)]
            cells = [_verdict(_estimate(metric, paired), metric) for metric in drawn]
            rows.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _estimate(metric: Metric, runs: Sequence[Scores]) -> Estimate:
    found = estimate(run[metric.name] for run in runs)
    assert found is not None
    return found


def _interval(value: Estimate, metric: Metric, sign: str = "") -> str:
    text = f"{value.mean:{sign}{metric.format}}"
    return text if value.half_width is None else f"{text} ± {value.half_width:{metric.format}}"


def _verdict(value: Estimate, metric: Metric) -> str:
    better = {0: "", None: "", 1: "**better**", -1: "**worse**"}
    sign = value.sign if value.sign is None or metric.higher_is_better else -value.sign
    return f"{_interval(value, metric, '+')} {better[sign]}".strip()


def draw(use: Use, scores: Mapping[str, Sequence[Scores]]) -> Figure:
    """Return a panel per drawn metric, a row per method: the runs, their mean and its interval."""
    drawn = [metric for metric in use.metrics if metric.drawn]
    figure = Figure(figsize=(style.WIDTH_INCHES, style.rows_height(len(scores))), layout="constrained")
    figure.suptitle(use.title, x=0.01, ha="left", fontsize=style.TITLE_POINTS, fontweight="bold", color=style.INK)
    for axes, metric in zip(figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0], drawn):
        style.dress(axes, style.SMALL_POINTS)
        for row, (method, runs) in enumerate(scores.items()):
            colour = "#0072B2" if method == OURS else style.MUTED
            value = _estimate(metric, runs)
            axes.scatter([run[metric.name] for run in runs], [row] * len(runs), s=14, color=colour, alpha=0.25, lw=0)
            axes.errorbar(value.mean, row, xerr=value.half_width or 0, fmt="o", color=colour, capsize=3)
        arrow = "higher" if metric.higher_is_better else "lower"
        axes.set_xlabel(f"{metric.name}\n({arrow} is better)", fontsize=style.SMALL_POINTS, color=style.INK)
        style.label_rows(axes, list(scores))
        axes.set_yticklabels(list(scores))  # whole names
    return figure


def results_file(use: Use) -> Path:
    return DOCS / "results" / f"use_{use.name}.csv"


def write_results(use: Use, scores: Mapping[str, Sequence[Scores]]) -> None:
    """Write a row per method and seed."""
    names = [metric.name for metric in use.metrics]
    with results_file(use).open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["method", "seed", *names])
        for method, runs in scores.items():
            rows.writerows([method, seed, *(f"{run[name]:.5g}" for name in names)] for seed, run in enumerate(runs))


def read_results(use: Use) -> dict[str, list[Scores]]:
    scores: dict[str, list[Scores]] = {method: [] for method in use.grids}
    with results_file(use).open(newline="") as file:
        for row in csv.DictReader(file):
            scores[row["method"]].append({metric.name: float(row[metric.name]) for metric in use.metrics})
    return scores


def write_tables(use: Use, tables: str) -> None:
    """Replace the tables of a use in docs/USES.md, between its two comments."""
    page = DOCS / "USES.md"
    start, end = f"<!-- {use.name} -->\n", f"<!-- end of {use.name} -->"
    before, rest = page.read_text().split(start)
    page.write_text(before + start + tables + "\n\n" + end + rest.split(end)[1])
