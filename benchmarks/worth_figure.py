"""Draw what a mixture reaches and from what size of run it pays, for README: `python benchmarks/worth_figure.py`.

Folders of comparisons are given as to `benchmarks/objectives.py`, which prints the same values as tables. Shown is the
objective `learnt` (learnt domains down, the retained one no worse than under static training), of the labels in LINES.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from objectives import Key, Stated, Study, objectives, price, read_study, static_average

from tasks.workspace import paths
from velocitune_core.comparison.statistics import Estimate, estimate
from velocitune_core.mixture_law.break_even import pays_from

FREE = "#7F7F7F"  # constant mixtures that cost nothing
LINES = {  # name, colour, where the name stands from the point, in points
    "static": ("static", FREE, (-8, 6)),
    "temperature-1_5": ("T = 1.5", FREE, (-8, 6)),
    "temperature-2": ("T = 2", FREE, (-8, 6)),
    "temperature-3": ("T = 3", FREE, (-8, -14)),
    "uniform": ("equal shares", FREE, (-8, 6)),
    "velocitune": ("velocitune (the paper)", "#D55E00", (-8, 8)),
    "recommended": ("recommended", "#0072B2", (8, 4)),
    "planned-learnt-sibling-full-18": ("planned, 18 whole runs", "#009E73", (8, -14)),
    "planned-learnt-sibling-bimix-12": ("planned, 12 short runs", "#CC79A7", (-8, -14)),
}
PRICED = ("temperature-3", "recommended", "planned-learnt-sibling-full-18", "planned-learnt-sibling-bimix-12")
SIZES = np.geomspace(1, 40, 200)  # of the main run, in runs of the embedded default


class Line(NamedTuple):
    """Differences to static training in nats, paired by seed, and the price in runs."""

    gain: Estimate
    guard: Estimate
    price: float


def read_lines(study: Study, stated: Stated) -> dict[str, Line]:
    assert stated.guard is not None
    base, runs = study.comparison.baseline, {(run.label, run.seed): run for run in study.comparison.runs}
    lines = {}
    for label in LINES:
        keys: list[Key] = [(label, seed) for seed in study.seeds if (label, seed) in study.losses]
        pairs = [(study.losses[key], study.losses[base, key[1]]) for key in keys]
        gain = estimate([stated.average(ours) - stated.average(theirs) for ours, theirs in pairs])
        guard = estimate([stated.guard(ours) - stated.guard(theirs) for ours, theirs in pairs])
        assert gain is not None and guard is not None, f"no runs of {label}"
        lines[label] = Line(gain, guard, float(np.mean([price(study, runs[key]) for key in keys])))
    return lines


def draw_reached(axes: Axes, lines: dict[str, Line], constants: list[str], retained: str) -> None:
    frontier = sorted((lines[label].guard.mean, lines[label].gain.mean) for label in constants)
    axes.plot(*zip(*frontier, strict=True), color="#b8b8b8", zorder=1)
    axes.axvspan(0, 1, color="#b3261e", alpha=0.06, lw=0)
    for label, line in lines.items():
        name, colour, offset = LINES[label]
        spread = {"xerr": line.guard.half_width, "yerr": line.gain.half_width}
        axes.errorbar(line.guard.mean, line.gain.mean, **spread, fmt="o", color=colour, ms=7, lw=1)
        axes.annotate(
            name,
            (line.guard.mean, line.gain.mean),
            offset,
            textcoords="offset points",
            color=colour,
            ha="left" if offset[0] > 0 else "right",
        )
    axes.set_xlim(min(x for x, _ in frontier) - 0.05, max(line.guard.mean for line in lines.values()) + 0.02)
    axes.set_title("What is reached", loc="left", fontweight="bold")
    axes.set_xlabel(f"{retained}, against static (nats); red: worse than it")
    axes.set_ylabel("mean of the learnt domains, against static (nats)")


def draw_net(axes: Axes, lines: dict[str, Line], static: Callable[[float], float], tokens: int) -> None:
    """Draw the gain of each line less what static training gains from its price, over the size of the main run.

    Args:
        static: loss of static training after so many tokens.
        tokens: of one run of the embedded default.
    """
    for label in PRICED:
        (name, colour, _), line = LINES[label], lines[label]
        instead = np.array([static(tokens * size) - static(tokens * (size + line.price)) for size in SIZES])
        since = f"{name}: {pays_in_words(line, static, tokens)}"
        axes.plot(SIZES, line.gain.mean + instead, color=colour, lw=2, label=since)
    axes.axhline(0, color="#222222", lw=1)
    axes.annotate("static, trained longer", (SIZES[-1], 0), (-2, 4), textcoords="offset points", ha="right")
    axes.set(xscale="log", xlim=(SIZES[0], SIZES[-1]), ylim=(-0.05, 0.1), xticks=[1, 2, 5, 10, 20, 40])
    axes.set_xticklabels(["1", "2", "5", "10", "20", "40"])
    axes.set_title("From what size of run it pays", loc="left", fontweight="bold")
    axes.set_xlabel("size of the main run, in runs of the embedded default")
    axes.set_ylabel("mixture, against as many more steps of static (nats)")
    axes.legend(frameon=False, title="against static", alignment="left")


def pays_in_words(line: Line, static: Callable[[float], float], tokens: int) -> str:
    """Return from what size of the main run on a line gains more than static training does from its price."""
    if not line.price:
        return "free"
    multiple = pays_from(static, -line.gain.mean, line.price * tokens)
    return "never pays" if multiple is None else f"pays from {multiple * line.price:.0f} runs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="of comparisons (default: that of this workspace)")
    parser.add_argument("--to", type=Path, default=Path("docs/figures/worth.png"))
    arguments = parser.parse_args()
    study = read_study(arguments.folders or [paths.COMPARISON.parent], None)
    stated = next(each for each in objectives(study.comparison) if each.title == "learnt")
    lines = read_lines(study, stated)
    figure = Figure(figsize=(12, 4.8), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    draw_reached(left, lines, study.temperatures, ", ".join(study.comparison.retained))
    draw_net(right, lines, static_average(study, stated), study.comparison.runs[0].result.tokens)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.to, dpi=110)


if __name__ == "__main__":
    main()
