"""Tables of runs as CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from drawn_swarm import draw_swarm

HEADER = "weight/a,weight/b,loss/a,loss/b"

GOOD = ["0.5,0.5,1.0,2.0", "0.4,0.6,1.1,1.9", "0.3,0.7,1.2,1.85"]


def swarm() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return weights and losses of 16 runs of four domains, by name."""
    return draw_swarm(3, runs=16, domains=4, sets=4).columns


def write_table(path: Path, *columns: dict[str, object], order: list[int] | None = None) -> Path:
    """Write columns as CSV, with the rows in `order`."""
    table = {name: list(values) for each in columns for name, values in each.items()}  # type: ignore[call-overload]
    rows = list(zip(*table.values(), strict=True))
    rows = rows if order is None else [rows[row] for row in order]
    path.write_text("\n".join([",".join(table), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def named(what: str, columns: dict[str, np.ndarray]) -> dict[str, object]:
    return {f"{what}/{name}": values for name, values in columns.items()}
