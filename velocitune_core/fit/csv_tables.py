"""Read a table of runs from CSV files: which columns are weights, which are losses, and what each run is called."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

LABELS = ("run", "run_id", "id", "index", "name", "Unnamed: 0", "")  # columns that name runs; the first that is there
WEIGHTS, LOSSES = "weight/*", "loss/*"  # columns, unless they are named otherwise
EVERY = "*"  # of two tables without such columns: every column with numbers, except for
BOOKKEEPING = re.compile(
    r"(.*[^a-z])?(seed|steps?|tokens?|epochs?|iterations?|hours?|minutes?|seconds?|time|flops|lr|learning_rate|batch_size)",
    flags=re.IGNORECASE,
)
DECIMAL_COMMA = re.compile(r"-?\d*,\d+")
HEAD = re.compile(r"[^/_.]*[/_.]")  # of a name: what columns of one kind share
EXAMPLES = {"weights": "share_*", "losses": "*_loss"}  # if no columns share one
SHOWN = 5  # cells named in a message


class TableError(ValueError):
    """A table of runs that cannot be read. The message has every problem, with file, line and column."""


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


@dataclass(frozen=True)
class _Table:
    path: Path
    header: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]  # (line of the file, cells)

    @property
    def label(self) -> str | None:
        return next((name for name in LABELS if name in self.header), None)

    @property
    def others(self) -> list[str]:
        return [name for name in self.header if name not in LABELS]

    def cells(self, column: str) -> list[str]:
        place = self.header.index(column)
        return [cells[place].strip() for _, cells in self.rows]


def read_csv_runs(paths: Sequence[Path], *, weights: str | None = None, losses: str | None = None) -> Runs:
    """Return the runs of one table with weights and losses, or of two tables: of weights, and of losses.

    Rows of two tables are joined by the column that names the runs (run, run_id, id, index or name), or by position,
    with a note, if neither has one.

    Args:
        paths: one CSV file or two; tabs or semicolons may stand in place of commas.
        weights: columns with domain weights: names, separated by commas, each with at most one `*`. What `*` stands for
            is the domain; without one, the whole name is. None: `weight/*`; of two tables all with numbers, without
            such columns and those that by their names count or time something (BOOKKEEPING), which a note has.
        losses: the same for held-out losses, nats per token; None: `loss/*`, or as above.

    Raises TableError for files and columns that are missing, rows of another length, cells that are no numbers, and
    two tables of which one names its runs.
    """
    if not 1 <= len(paths) <= 2:
        raise TableError(f"{len(paths)} tables are given; give one with weights and losses, or two: weights, losses")
    tables = [_read(path) for path in paths]
    single = len(tables) == 1
    notes = [] if single else list(_join_notes(*tables))
    of_weights = _chosen(tables[0], "weights", weights or _default(tables[0], WEIGHTS, single))
    of_losses = _chosen(tables[-1], "losses", losses or _default(tables[-1], LOSSES, single), of_weights.values())
    if single and (both := sorted({*of_weights.values()} & {*of_losses.values()})):
        raise TableError(f"{paths[0]}: columns {both} are named as weights and as losses; change --weights or --losses")
    used = {*of_weights.values(), *of_losses.values()}
    unused = [name for table in tables for name in table.others if name not in used]
    if aside := [name for name in unused if not single and BOOKKEEPING.fullmatch(name)]:
        notes.append(f"taken for no data by their names: {', '.join(aside)}; --weights and --losses can name them")
    notes += _misnamed(unused, used)
    found = Runs(_columns(tables[0], of_weights), _columns(tables[-1], of_losses), unused, notes)
    if single and found.weights.index is None:
        lines = [f"line {line}" for line, _ in tables[0].rows]
        return Runs(Columns(found.weights.values, lines), Columns(found.losses.values, lines), unused, notes)
    return found


def _read(path: Path) -> _Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: cannot be read as text in UTF-8: {error}") from None
    first = text.partition("\n")[0]
    delimiter = next((each for each in (",", "\t", ";") if each in first), ",")
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    if not rows:
        raise TableError(f"{path}: is empty; its first line must name the columns")
    header = [name.strip() for name in rows[0][1]]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise TableError(f"{path}: columns {twice} are there twice; rename or remove one of each")
    if odd := [f"line {line} has {len(cells)}" for line, cells in rows[1:] if len(cells) != len(header)]:
        raise TableError(f"{path}: the header names {len(header)} columns, but {_some(odd)}; complete these rows")
    if len(rows) == 1:
        raise TableError(f"{path}: has a header and no rows; give one row per run")
    return _Table(path, header, rows[1:])


def _join_notes(weights: _Table, losses: _Table) -> Iterator[str]:
    """Yield a note if rows are joined by position. Raises TableError if just one table names its runs."""
    if weights.label is None and losses.label is None:
        yield "no column names the runs: row by row, both tables are taken to have the same runs in the same order"
    elif weights.label is None or losses.label is None:
        named, other = (losses, weights) if weights.label is None else (weights, losses)
        raise TableError(
            f"{other.path}: no column names the runs, as {named.label!r} does in {named.path}; add one (run, run_id, "
            "id, index or name), so that rows can be joined"
        )


def _default(table: _Table, pattern: str, single: bool) -> str:
    return pattern if single or any(_matching(table.others, pattern)) else EVERY


def _chosen(table: _Table, what: str, patterns: str, taken: Collection[str] = ()) -> dict[str, str]:
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


def _suggested(table: _Table, what: str, pattern: str, taken: Collection[str]) -> str:
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
        if (head := _head(name)) and head not in heads and (near := get_close_matches(head, heads, n=1, cutoff=0.75)):
            yield f"column {name!r} is not used; did you mean {near[0] + name.removeprefix(head)!r}?"


def _head(name: str) -> str:
    return found[0] if (found := HEAD.match(name)) else ""


def _candidates(table: _Table, pattern: str) -> Sequence[str]:
    """Return the columns that a pattern is tried on: all of them are data only if they hold a number."""
    if pattern == EVERY:
        data = [name for name in table.others if not BOOKKEEPING.fullmatch(name)]
        return [name for name in data if any(map(_is_number, table.cells(name)))]
    return table.others if "*" in pattern else table.header


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # which Python takes for a separator of digits


def _matching(columns: Sequence[str], pattern: str) -> Iterator[tuple[str, str]]:
    expression = re.compile("(.+)".join(map(re.escape, pattern.split("*"))))
    for column in columns:
        if match := expression.fullmatch(column):
            yield (match[1] if "*" in pattern else column), column


def _columns(table: _Table, chosen: Mapping[str, str]) -> Columns:
    problems = []
    for column in chosen.values():
        for (line, _), cell in zip(table.rows, table.cells(column), strict=True):
            if not _is_number(cell):
                given = repr(cell) if cell else "empty"
                fix = "write it with a decimal point" if DECIMAL_COMMA.fullmatch(cell) else "give a number"
                problems.append(f"{table.path}:{line}: column {column!r} is {given}; {fix}, or leave the run out")
    if problems:
        rest = len(problems) - SHOWN
        raise TableError("\n".join([*problems[:SHOWN], *([f"and {rest} more"] if rest > 0 else [])]))
    values = {name: [float(cell) for cell in table.cells(column)] for name, column in chosen.items()}
    return Columns(values, None if table.label is None else table.cells(table.label))


def _some(texts: Sequence[str]) -> str:
    return ", ".join([*texts[:SHOWN], *(["…"] if len(texts) > SHOWN else [])])
