"""Read a table of runs from CSV files: which columns are weights, which are losses, and what each run is called."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from velocitune_core.fit.csv_file import CsvFile, TableError, read_csv_file
from velocitune_core.fit.row_checks import Chosen, check_rows, is_number
from velocitune_core.spelling import nearest

WEIGHTS, LOSSES = "weight/*", "loss/*"  # columns, unless they are named otherwise
EVERY = "*"  # of two tables without such columns: every column with numbers, except for
BOOKKEEPING = re.compile(
    r"(.*[^a-z])?(seed|steps?|tokens?|epochs?|iterations?|hours?|minutes?|seconds?|time|flops|lr|learning_rate|batch_size)",
    flags=re.IGNORECASE,
)
HEAD = re.compile(r"[^/_.]*[/_.]")  # of a name: what columns of one kind share
EXAMPLES = {"weights": "share_*", "losses": "*_loss"}  # if no columns share one


@dataclass(frozen=True)
class Columns:
    """Some columns of a table: what `fit_mixture_law` takes as weights or as losses."""

    values: Mapping[str, Sequence[float]]  # by name
    index: Sequence[str] | None  # labels of the runs; None: they have none

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.values)

    def __getitem__(self, name: str) -> Sequence[float]:
        return self.values[name]


@dataclass(frozen=True)
class Runs:
    """The weights and the losses of runs, as they stand in the files."""

    weights: Columns
    losses: Columns
    unused: Sequence[str] = ()  # columns that are neither
    notes: Sequence[str] = ()  # what was assumed of the files


def read_csv_runs(paths: Sequence[Path], *, weights: str | None = None, losses: str | None = None) -> Runs:
    """Return the runs of one table with weights and losses, or of two tables: of weights, and of losses.

    Rows of two tables are joined by the column that names the runs (run, run_id, id, index or name), or by position,
    with a note, if neither has one.

    Args:
        paths: one CSV file or two; tabs or semicolons may stand in place of commas, and commas then before decimals.
        weights: columns with domain weights: names, separated by commas, each with at most one `*`. What `*` stands for
            is the domain; without one, the whole name is. None: `weight/*`; of two tables all with numbers, without
            such columns and those that by their names count or time something (BOOKKEEPING), which a note has.
        losses: the same for held-out losses, nats per token; None: `loss/*`, or as above.

    Raises TableError for files and columns that are missing, for rows as `check_rows` does, and for two tables of which
    one names its runs.
    """
    if not 1 <= len(paths) <= 2:
        raise TableError(f"{len(paths)} tables are given; give one with weights and losses, or two: weights, losses")
    tables = [read_csv_file(path) for path in paths]
    single = len(tables) == 1
    notes = [] if single else list(_join_notes(*tables))
    notes += [_comma_note(table) for table in tables if table.decimal_commas]
    of_weights = _chosen(tables[0], "weights", weights or _default(tables[0], WEIGHTS, single))
    of_losses = _chosen(tables[-1], "losses", losses or _default(tables[-1], LOSSES, single), of_weights.values())
    if single and (both := sorted({*of_weights.values()} & {*of_losses.values()})):
        raise TableError(f"{paths[0]}: columns {both} are named as weights and as losses; change --weights or --losses")
    used = {*of_weights.values(), *of_losses.values()}
    unused = [name for table in tables for name in table.others if name not in used]
    if aside := [name for name in unused if not single and BOOKKEEPING.fullmatch(name)]:
        notes.append(f"taken for no data by their names: {', '.join(aside)}; --weights and --losses can name them")
    misnamed = list(_misnamed(unused, used))
    notes += misnamed
    shares, values = Chosen(tables[0], of_weights), Chosen(tables[-1], of_losses)
    try:
        check_rows(shares, values)
    except TableError as error:  # which mostly follows from a column that is left out
        raise TableError("\n".join([*misnamed, str(error)])) from None
    labels = [shares.labels, values.labels]
    if single and shares.labels is None:
        labels = [[f"line {line}" for line in tables[0].lines]] * 2
    return Runs(Columns(shares.values, labels[0]), Columns(values.values, labels[1]), unused, notes)


def _join_notes(weights: CsvFile, losses: CsvFile) -> Iterator[str]:
    """Yield a note if rows are joined by position. Raises TableError if just one table names its runs."""
    if weights.label is None and losses.label is None:
        yield "no column names the runs: row by row, both tables are taken to have the same runs in the same order"
    elif weights.label is None or losses.label is None:
        named, other = (losses, weights) if weights.label is None else (weights, losses)
        raise TableError(
            f"{other.path}: no column names the runs, as {named.label!r} does in {named.path}; add one (run, run_id, "
            "id, index or name), so that rows can be joined"
        )


def _comma_note(table: CsvFile) -> str:
    return f"{table.path}: commas are read as decimal points, in {', '.join(table.decimal_commas)}"


def _default(table: CsvFile, pattern: str, single: bool) -> str:
    return pattern if single or any(_matching(table.others, pattern)) else EVERY


def _chosen(table: CsvFile, what: str, patterns: str, taken: Collection[str] = ()) -> dict[str, str]:
    """Return by domain or set the column that has it; `taken` ones are not suggested."""
    found: dict[str, str] = {}
    for pattern in filter(None, map(str.strip, patterns.split(","))):
        if pattern.count("*") > 1:
            raise TableError(f"--{what} {pattern!r}: has more than one *; it stands for the name")
        own = list(_matching(_candidates(table, pattern), pattern))
        if not own:
            raise TableError(
                f"{table.path}: no column is called {pattern!r}, which should hold {what}; columns are "
                f"{', '.join(map(repr, table.header))}. Name them with --{what}, such as --{what} "
                f"{_suggested(table, what, pattern, taken)!r}"
            )
        for name, column in own:
            if found.setdefault(name, column) != column:
                raise TableError(
                    f"{table.path}: columns {found[name]!r} and {column!r} are both the {what} of {name!r}"
                )
    return found


def _suggested(table: CsvFile, what: str, pattern: str, taken: Collection[str]) -> str:
    """Return a name like the one that was not found, or a pattern of two or more columns with numbers."""
    names = [name for name in _candidates(table, EVERY) if name not in taken]
    if "*" not in pattern:
        heads = get_close_matches(pattern, names, n=1)
    else:
        shared = [_head(name) for name in names]
        other = _head(LOSSES if what == "weights" else WEIGHTS)
        heads = [f"{head}*" for head in dict.fromkeys(shared) if shared.count(head) > 1 and head not in ("", other)]
        heads = get_close_matches(pattern, heads, n=1) or heads
    if not heads:
        return EXAMPLES[what]
    return heads[0 if what == "weights" else -1]  # weights mostly stand first


def _misnamed(unused: Sequence[str], used: Collection[str]) -> Iterator[str]:
    """Yield a note on each column that is not used and begins almost like those that are."""
    heads = {_head(name) for name in used} - {""}
    for name in unused:
        if (head := _head(name)) and head not in heads and (near := nearest(head, heads, cutoff=0.75)):
            yield f"column {name!r} is not used; did you mean {near + name.removeprefix(head)!r}?"


def _head(name: str) -> str:
    return found[0] if (found := HEAD.match(name)) else ""


def _candidates(table: CsvFile, pattern: str) -> Sequence[str]:
    """Return the columns that a pattern is tried on: all of them are data only if they hold a number."""
    if pattern == EVERY:
        data = [name for name in table.others if not BOOKKEEPING.fullmatch(name)]
        return [name for name in data if any(map(is_number, table.cells(name)))]
    return table.others if "*" in pattern else table.header


def _matching(columns: Sequence[str], pattern: str) -> Iterator[tuple[str, str]]:
    expression = re.compile("(.+)".join(map(re.escape, pattern.split("*"))))
    for column in columns:
        if match := expression.fullmatch(column):
            yield (match[1] if "*" in pattern else column), column
