"""What is wrong with the rows of tables of runs: each problem with file, line and column, and its fix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from velocitune_core.fit.csv_file import DECIMAL_COMMA, SHOWN, CsvFile, TableError
from velocitune_core.mixture_law.table import unlike_sums


@dataclass(frozen=True)
class Chosen:
    """The columns of a file that hold weights or losses."""

    file: CsvFile
    columns: Mapping[str, str]  # by domain or set

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """The numbers of each column, by domain or set; every cell must be one."""
        return {name: [float(cell) for cell in self.file.cells(column)] for name, column in self.columns.items()}

    @cached_property
    def labels(self) -> list[str] | None:
        """The names of the runs, if the file has them."""
        return None if self.file.label is None else self.file.cells(self.file.label)

    @property
    def rows(self) -> list[tuple[float, ...]]:
        """The numbers of each row."""
        return list(zip(*self.values.values(), strict=True))

    def at(self, row: int) -> str:
        """Return where a row stands, as messages begin."""
        return f"{self.file.path}:{self.file.lines[row]}"


def check_rows(weights: Chosen, losses: Chosen) -> None:
    """Raise TableError for rows that no law can be fitted to, or that are one run given twice.

    Cells are checked first: no number, not finite, a weight below zero, a loss that is not positive. Then names given
    twice, names in one of two tables only, weights that sum to something else than the others', and rows that are
    equal in all weights and losses.
    """
    cells = [*_cells(weights, "weight"), *_cells(losses, "loss")]
    names = [] if cells else _renamed(weights, losses) or [*_unjoined(weights, losses)]
    if problems := cells or names or [*_sums(weights), *_twice(weights, losses)]:
        rest = len(problems) - SHOWN
        raise TableError("\n".join([*problems[:SHOWN], *([f"and {rest} more"] if rest > 0 else [])]))


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, NaN and infinities included."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # which Python takes for a separator of digits


def _cells(chosen: Chosen, what: str) -> Iterator[str]:
    for column in chosen.columns.values():
        for row, cell in enumerate(chosen.file.cells(column)):
            if fix := _fix(cell, what):
                given = cell if is_number(cell) else repr(cell) if cell else "empty"
                yield f"{chosen.at(row)}: column {column!r} is {given}; {fix}, or leave the run out"


def _fix(cell: str, what: str) -> str:
    """Return how to correct a cell; "" if nothing is wrong with it."""
    if not is_number(cell):
        return "write it with a decimal point" if DECIMAL_COMMA.fullmatch(cell) else "give a number"
    value = float(cell)
    if what == "weight":
        return "" if 0 <= value < math.inf else "a weight is finite, and zero or more: give the run's share"
    return "" if 0 < value < math.inf else "a loss is finite and positive: measure the run again"


def _renamed(weights: Chosen, losses: Chosen) -> list[str]:
    """Return the problems of names in one table or in each of two."""
    if losses.file is weights.file:
        both = [(*shares, *values) for shares, values in zip(weights.rows, losses.rows, strict=True)]
        return [*_names(weights, both)]
    return [*_names(weights, weights.rows), *_names(losses, losses.rows)]


def _names(chosen: Chosen, rows: Sequence[tuple[float, ...]]) -> Iterator[str]:
    """Yield a problem for each row whose run has the name of an earlier one."""
    first: dict[str, int] = {}
    for row, name in enumerate(chosen.labels or []):
        if (other := first.setdefault(name, row)) == row:
            continue
        same = rows[other] == rows[row]
        fix = "with the same values: leave one out" if same else "with other values: rename it, or leave one out"
        yield f"{chosen.at(row)}: run {name!r} is there already, in line {chosen.file.lines[other]}, {fix}"


def _unjoined(weights: Chosen, losses: Chosen) -> Iterator[str]:
    """Yield a problem for each run that only one of two tables has, or for tables of unlike length without names."""
    if weights.labels is None or losses.labels is None:
        counts = len(weights.file.rows), len(losses.file.rows)
        if counts[0] != counts[1]:
            yield (
                f"{weights.file.path} has {counts[0]} rows and {losses.file.path} {counts[1]}, and no column names the "
                "runs; give one row of each per run, in the same order"
            )
        return
    for own, other, what in ((weights, losses, "losses"), (losses, weights, "weights")):
        there = {*(other.labels or [])}
        for row, name in enumerate(own.labels or []):
            if name not in there:
                yield f"{own.at(row)}: run {name!r} has no {what} in {other.file.path}; add them, or leave the run out"


def _sums(weights: Chosen) -> Iterator[str]:
    """Yield a problem for each row whose weights sum to something else than the others'."""
    if len(weights.columns) == 1:  # which leaves no mixture to find, whatever it sums to
        return
    totals = np.array([sum(row) for row in weights.rows])
    odd, common = unlike_sums(totals)
    for row in odd:
        yield (
            f"{weights.at(int(row))}: the weights ({_some([*weights.columns.values()])}) sum to {totals[row]:.4g}, and "
            f"those of other rows to {common:.4g}; complete the row, or name the column that is missing with --weights"
        )


def _twice(weights: Chosen, losses: Chosen) -> Iterator[str]:
    """Yield a problem for each run that has all weights and losses of an earlier one."""
    of_run = dict(zip(losses.labels or range(len(losses.rows)), losses.rows, strict=True))
    names = weights.labels or range(len(weights.rows))
    first: dict[tuple[float, ...], int] = {}
    for row, (name, shares) in enumerate(zip(names, weights.rows, strict=True)):
        if (other := first.setdefault((*shares, *of_run[name]), row)) != row:
            called = "" if weights.labels is None else f", run {weights.labels[other]!r}"
            yield (
                f"{weights.at(row)}: all weights and losses are those of line {weights.file.lines[other]}{called}; one "
                "run would count twice: leave one out (a run with another seed, and so other losses, may stay)"
            )


def _some(texts: Sequence[str]) -> str:
    return ", ".join([*texts[:SHOWN], *(["…"] if len(texts) > SHOWN else [])])
