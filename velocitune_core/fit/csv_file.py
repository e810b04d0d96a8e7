"""Read a CSV file whose first line names the columns, and keep the line number of every row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

LABELS = ("run", "run_id", "id", "index", "name", "Unnamed: 0", "")  # columns that name runs; the first that is there
DELIMITERS = (",", ";", "\t")
DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
SEPARATOR_LINE = re.compile(r"\s*sep=([,;\t])\s*\n", re.IGNORECASE)  # as Excel writes it
SHOWN = 5  # cells, rows or problems named in a message


class TableError(ValueError):
    """A table of runs that cannot be read. The message has every problem, with file, line and column."""


@dataclass(frozen=True)
class CsvFile:
    """A table as it stands in a file."""

    path: Path
    header: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]  # (line of the file, cells)
    decimal_commas: Sequence[str] = ()  # columns whose numbers have a comma in the file, and a point in `rows`

    @property
    def label(self) -> str | None:
        """The column that names the runs, if there is one."""
        return next((name for name in LABELS if name in self.header), None)

    @property
    def others(self) -> list[str]:
        """The columns that do not name runs."""
        return [name for name in self.header if name not in LABELS]

    @property
    def lines(self) -> list[int]:
        """The line of every row."""
        return [line for line, _ in self.rows]

    def cells(self, column: str) -> list[str]:
        """Return the cells of a column."""
        place = self.header.index(column)
        return [cells[place].strip() for _, cells in self.rows]


def read_csv_file(path: Path) -> CsvFile:
    """Return the table of a file; tabs or semicolons may stand in place of commas, and commas then before decimals.

    Raises TableError for a file that is missing, no text, or empty, for columns given twice and rows of another length.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: cannot be read as text in UTF-8: {error}") from None
    named = SEPARATOR_LINE.match(text)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = named[1] if named else max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    rows = rows[1:] if named else rows
    if not rows:
        raise TableError(f"{path}: is empty; its first line must name the columns")
    header = [name.strip() for name in rows[0][1]]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise TableError(f"{path}: columns {twice} are there twice; rename or remove one of each")
    if odd := [f"line {line} has {len(cells)}" for line, cells in rows[1:] if len(cells) != len(header)]:
        some = ", ".join([*odd[:SHOWN], *(["…"] if len(odd) > SHOWN else [])])
        fix = "complete these rows" if delimiter != "," else "complete these rows, and write decimals with a point"
        raise TableError(f"{path}: the header names {len(header)} columns, but {some}; {fix}")
    if len(rows) == 1:
        raise TableError(f"{path}: has a header and no rows; give one row per run")
    return _with_points(CsvFile(path, header, rows[1:])) if delimiter != "," else CsvFile(path, header, rows[1:])


def _with_points(table: CsvFile) -> CsvFile:
    """Return a table with a point in place of every decimal comma.

    A column that has points too is left as it is: there, a comma or a point may separate thousands.
    """
    cells = {name: table.cells(name) for name in table.others}
    columns = [
        name
        for name, own in cells.items()
        if any(map(DECIMAL_COMMA.fullmatch, own)) and not any("." in cell for cell in own)
    ]
    places = {table.header.index(name) for name in columns}
    rows = [
        (line, [_pointed(cell) if place in places else cell for place, cell in enumerate(row)])
        for line, row in table.rows
    ]
    return replace(table, rows=rows, decimal_commas=columns)


def _pointed(cell: str) -> str:
    return cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell.strip()) else cell
