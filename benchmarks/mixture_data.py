"""Read swarms for the benchmarks of mixtures. The project ships none of the files.

A folder may hold `embedded-swarm.json` (runs of the embedded default: name, fraction, weights, losses, by name) and
the CSV files of sail-sg/regmix's folder `data` in `regmix/`: `{train,test}_mixture_1m.csv` and
`{train,test}_pile_loss_1m.csv`.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Swarm(NamedTuple):
    """Runs of one kind; domains and sets are in the order of their names."""

    domains: tuple[str, ...]
    sets: tuple[str, ...]
    weights: Array  # (R, K)
    losses: Array  # (R, I)
    names: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    fractions: tuple[float, ...] = ()  # of the budget

    def part(self, rows: Array | slice | list[int]) -> Swarm:
        """Return some of the runs."""
        names, seeds, fractions = (
            tuple(np.array(each)[rows].tolist()) if each else () for each in (self.names, self.seeds, self.fractions)
        )
        return Swarm(self.domains, self.sets, self.weights[rows], self.losses[rows], names, seeds, fractions)

    def with_run(self, weights: Array, losses: Array) -> Swarm:
        """Return these runs and one more."""
        added = np.vstack([self.weights, weights]), np.vstack([self.losses, losses])
        return Swarm(self.domains, self.sets, *added, (*self.names, "added"))

    def columns(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return weights by domain and losses by set."""
        weights = dict(zip(self.domains, self.weights.T, strict=True))
        return weights, dict(zip(self.sets, self.losses.T, strict=True))


def embedded(folder: Path, prefix: str) -> Swarm:
    """Return the runs of the embedded default whose name begins with a prefix; "full": those of the whole budget."""
    content = json.loads((folder / "embedded-swarm.json").read_text(encoding="utf-8"))
    runs = [
        run for run in content["runs"] if (run["fraction"] == 1 if prefix == "full" else run["name"].startswith(prefix))
    ]
    names = tuple(sorted(content["initial"]))
    weights = np.array([[run["weights"][name] for name in names] for run in runs])
    losses = np.array([[run["losses"][name] for name in names] for run in runs])
    labels, seeds, fractions = (tuple(run[field] for run in runs) for field in ("name", "seed", "fraction"))
    return Swarm(names, names, weights / weights.sum(axis=1, keepdims=True), losses, labels, seeds, fractions)


def regmix(folder: Path, part: str) -> Swarm:
    """Return the "train" or "test" runs of RegMix at 1 M parameters."""
    domains, weights = _table(folder / "regmix" / f"{part}_mixture_1m.csv", "train_the_pile_", "")
    sets, losses = _table(folder / "regmix" / f"{part}_pile_loss_1m.csv", "metric/the_pile_", "_val_loss")
    names = tuple(f"{part}-{number}" for number in range(len(weights)))
    return Swarm(domains, sets, weights / weights.sum(axis=1, keepdims=True), losses, names)


def _table(path: Path, before: str, after: str) -> tuple[tuple[str, ...], Array]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
    columns = {name.removeprefix(before).removesuffix(after): name for name in rows[0] if name != "index"}
    names = tuple(sorted(columns))
    return names, np.array([[float(row[columns[name]]) for name in names] for row in rows])
