"""How strategies act on data skewed to one domain, the table and figure of docs/SKEW.md: `python benchmarks/skew.py`.

`--runs NAME=FOLDER …` writes the rows anew, from comparisons, one folder per skew, each with `comparison.json`; only
labels in LABELS count. The skew is the share of the largest domain's text, and static training keeps it as a weight.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from velocitune_core.comparison.statistics import estimate
from velocitune_core.contracts import Comparison

PROJECT = Path(__file__).parents[1]
LARGE = "code"  # the domain that has ever more of the text
LABELS = {
    "temperature-2": ("T = 2", "#7F7F7F"),
    "uniform": ("equal shares", "#B8B8B8"),
    "velocitune": ("velocitune", "#D55E00"),
    "recommended": ("recommended", "#0072B2"),
}

FEWEST = 3  # seeds for an interval
Row = dict[str, str]
Losses = dict[str, float]


def rows_of(skew: str, folder: Path) -> Iterator[Row]:
    found = Comparison.read(folder / "comparison.json")
    for run in found.runs:
        if run.label in {"static", *LABELS}:
            yield (
                {"skew": skew, "label": run.label, "seed": str(run.seed)}
                | {f"weight_{name}": f"{weight:.4f}" for name, weight in run.result.mean_domain_weights.items()}
                | {f"loss_{name}": f"{loss:.6f}" for name, loss in run.result.final.items()}
            )


def numbers(row: Row, kind: str) -> Losses:
    return {name.removeprefix(f"{kind}_"): float(value) for name, value in row.items() if name.startswith(f"{kind}_")}


class Skew:
    """The runs of one skew, and differences to static training of the same seed."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.weights = {(row["label"], row["seed"]): numbers(row, "weight") for row in rows}
        self.losses = {(row["label"], row["seed"]): numbers(row, "loss") for row in rows}
        self.sizes = next(weights for (label, _), weights in self.weights.items() if label == "static")
        self.labels = list(dict.fromkeys(label for label, _ in self.losses))

    def seeds(self, label: str) -> list[str]:
        return [seed for each, seed in self.losses if each == label and ("static", seed) in self.losses]

    def share(self, label: str) -> float:
        """Return the mean weight of the large domain over the run."""
        return float(np.mean([self.weights[label, seed][LARGE] for seed in self.seeds(label)]))

    def against_static(self, label: str, average: Callable[[Losses], float]) -> list[float]:
        """Return the differences to static training, one per seed."""
        return [average(self.losses[label, seed]) - average(self.losses["static", seed]) for seed in self.seeds(label)]

    def large(self, losses: Losses) -> float:
        return losses[LARGE]

    def others(self, losses: Losses) -> float:
        return float(np.mean([loss for name, loss in losses.items() if name != LARGE]))

    def macro(self, losses: Losses) -> float:
        return float(np.mean(list(losses.values())))

    def by_size(self, losses: Losses) -> float:
        return sum(self.sizes[name] * loss for name, loss in losses.items())


def in_words(differences: Sequence[float]) -> str:
    """Return their mean with its 95 % interval; of two seeds, for which that says nothing, both values."""
    found = estimate(differences)
    if found is None or found.half_width is None or len(differences) < FEWEST:
        text = ", ".join(f"{each:+.3f}" for each in differences)
    else:
        text = f"{found.mean:+.3f} ± {found.half_width:.3f}"
    return text.replace("-", "−")


def table(skews: dict[str, Skew]) -> str:
    lines = [
        f"| share of `{LARGE}` in the text | strategy | its weight | `{LARGE}` | the six others | macro | by size |",
        "|" + "---|" * 7,
    ]
    for skew in skews.values():
        for label in (each for each in LABELS if each in skew.labels):
            averages = (skew.large, skew.others, skew.macro, skew.by_size)
            cells = [f"{skew.sizes[LARGE]:.0%}", LABELS[label][0], f"{skew.share(label):.0%}"]
            cells += [in_words(skew.against_static(label, average)) for average in averages]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(skews: dict[str, Skew], file: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    weights, losses = figure.subplots(1, 2)
    for label, (name, colour) in LABELS.items():
        shown = sorted((s for s in skews.values() if label in s.labels), key=lambda s: s.sizes[LARGE])
        at = [s.sizes[LARGE] for s in shown]
        weights.plot(at, [s.share(label) for s in shown], "o-", color=colour, label=name)
        gains = [s.against_static(label, s.macro) for s in shown]
        means = [float(np.mean(each)) for each in gains]
        spread = [
            [m - min(g) for m, g in zip(means, gains, strict=True)],
            [max(g) - m for m, g in zip(means, gains, strict=True)],
        ]
        losses.errorbar(at, means, spread, fmt="o-", capsize=2, color=colour)
    ends = [min(s.sizes[LARGE] for s in skews.values()), max(s.sizes[LARGE] for s in skews.values())]
    weights.plot(ends, ends, color="black", lw=0.8, ls="--", label="static")
    losses.axhline(0, color="black", lw=0.8, ls="--")
    weights.set_title(f"Mean weight of {LARGE}", loc="left", fontweight="bold")
    losses.set_title("Macro-average against static (nats)", loc="left", fontweight="bold")
    for axes in (weights, losses):
        axes.set_xlabel(f"share of the text that is {LARGE}")
        axes.spines[["top", "right"]].set_visible(False)
    weights.legend(frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=PROJECT / "docs/results/skew.csv", help="rows: read, or written")
    parser.add_argument("--runs", nargs="*", default=[], metavar="NAME=FOLDER", help="write the rows of these anew")
    parser.add_argument("--figure", type=Path, help="draw into this file")
    arguments = parser.parse_args()
    if arguments.runs:
        rows = [
            row for skew, _, folder in (r.partition("=") for r in arguments.runs) for row in rows_of(skew, Path(folder))
        ]
        with arguments.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    with arguments.csv.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    skews = {
        name: Skew([row for row in rows if row["skew"] == name]) for name in dict.fromkeys(r["skew"] for r in rows)
    }
    print(table(skews))
    if arguments.figure:
        draw(skews, arguments.figure)


if __name__ == "__main__":
    main()
