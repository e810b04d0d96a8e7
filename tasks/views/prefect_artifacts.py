"""Tables for Prefect's UI and for the terminal."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_table_artifact
from rich.console import Console
from rich.table import Table

from velocitune_core.contracts import Manifest, Targets

logger = logging.getLogger(__name__)
TABLE_WIDTH = 150  # in a log, which has no width of its own
Rows = Sequence[dict[str, Any]]


def mixture_rows(manifest: Manifest, weights: dict[str, float]) -> list[dict[str, Any]]:
    """What the mixture is made of, a row per domain."""
    return [
        {
            "domain": name,
            "documents": domain.train.documents,
            "train tokens": domain.train.tokens,
            "held-out tokens": domain.held_out.tokens,
            "duplicates dropped": domain.duplicates,
            "original weight": round(weights[name], 4),
        }
        for name, domain in manifest.domains.items()
    ]


def target_rows(targets: Targets, initial: dict[str, float]) -> list[dict[str, Any]]:
    """Targets with their evidence, a row per domain."""
    rows = []
    for name, domain in targets.domains.items():
        evidence = domain.evidence
        interval = evidence.interval if evidence else None
        error = evidence.leave_largest_out_error if evidence else None
        other = evidence.other_law if evidence else None
        rows.append(
            {
                "domain": name,
                "initial": round(initial[name], 4),
                "target": round(domain.target, 4),
                "interval": f"{interval[0]:.3f} … {interval[1]:.3f}" if interval else "",
                "law": evidence.law.kind if evidence else "given by hand",
                "the other law": f"{other.target:.4f}" if other else "",
                "points": len(evidence.tokens) if evidence else 0,
                "left-out error": f"{error:+.2%}" if error is not None else "",
                "flags": ", ".join(domain.flags),
            }
        )
    return rows


def publish_table(key: str, title: str, rows: Rows) -> None:
    """A table artifact in Prefect; only a view, so a server that is gone costs a warning."""
    try:
        create_table_artifact([dict(row) for row in rows], key=key, description=title)
    except Exception as error:
        logger.warning("Prefect did not take the table %s: %s", key, error)


def print_table(title: str, rows: Rows) -> None:
    """The same on the terminal."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="right" if isinstance(rows[0][column], int | float) else "left")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int | float) else str(value) for value in row.values()))
    console = Console(stderr=True)
    console.width = max(console.width, TABLE_WIDTH) if not console.is_terminal else console.width
    console.print(table)
