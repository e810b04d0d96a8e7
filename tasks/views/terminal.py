"""The terminal: lines, tables, and progress bars of runs and of packing, above which lines are printed."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tasks.views.weights_line import WeightsLine
from velocitune_core.data.packing.progress import Progress
from velocitune_core.train import events
from velocitune_core.train.progress_bar import ProgressBar, bar

logger = logging.getLogger(__name__)
LOG_WIDTH = 120  # characters of a table in a log, which has no width of its own
BETWEEN_COLUMNS = 2
T = TypeVar("T")


def print_table(title: str, rows: Sequence[Mapping[str, Any]], optional: Sequence[str] | None = None) -> None:
    """Print a table on standard error; the columns are the keys of the first row.

    Args:
        optional: columns that are left out, the first one first, until the table fits; None: from the right.
    """
    console = _console()
    width = console.width if console.is_terminal else max(console.width, LOG_WIDTH)
    cells = [{name: _cell(value) for name, value in row.items()} for row in rows]
    shown, missing = fitting_columns(cells, width, list(rows[0])[:0:-1] if optional is None else optional)
    heading = f"{title} (not shown: {', '.join(missing)})" if missing and optional is None else title
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.padding = (0, BETWEEN_COLUMNS - 1, 0, 0)  # the box itself puts one space between columns
    for column in shown:
        table.add_column(column, justify="right" if isinstance(rows[0][column], int | float) else "left")
    for row in cells:
        table.add_row(*(row[column] for column in shown))
    console.width = width
    console.print(table)


def fitting_columns(
    rows: Sequence[Mapping[str, str]], width: int, optional: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the columns that fit into `width` characters, and those left out, in the order of `optional`."""
    longest = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    missing: list[str] = []
    for name in optional:
        if sum(longest.values()) + BETWEEN_COLUMNS * len(longest) <= width:
            break
        if longest.pop(name, None) is not None:
            missing.append(name)
    return list(longest), missing


def print_lines(lines: Sequence[str]) -> None:
    """Print lines on standard error."""
    console = _console()
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal, markup=False)


def console_of(stream: TextIO) -> Console:
    """Return a console that writes to a stream, as wide as its terminal: under TERM=dumb rich has 80 columns."""
    columns, lines = None, None
    if stream.isatty() and not os.environ.get("COLUMNS"):
        with suppress(OSError, ValueError):
            columns, lines = os.get_terminal_size(stream.fileno())
    return Console(file=stream, highlight=False, width=columns or None, height=lines or None)


def _console() -> Console:
    return console_of(sys.stderr)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def progress(items: Iterable[T], name: str, unit: str, *, total: int | None = None, leave: bool = True) -> Iterable[T]:
    """Return items as they are, with a progress bar of a terminal, or lines of a log, as they are taken.

    Args:
        total: how many there are, for items without a length.
        leave: whether the bar stays after the last one.
    """
    return bar(iterable=items, desc=name, unit=unit, total=total, leave=leave)


class TerminalWatcher:
    """A progress bar of a run, with the time left, which is estimated from the events since the bar was made.

    Args:
        shows_weights: whether a line below it has the domain weights as they move.
    """

    def __init__(self, shows_weights: bool = False) -> None:
        self._bar, self._since = ProgressBar(leave=not sys.stderr.isatty()), time.time()
        self._weights = WeightsLine() if shows_weights else None

    def __call__(self, event: events.Event) -> None:
        if event.time >= self._since:  # events of earlier attempts are read at once, and would give a wrong speed
            if self._weights is not None:
                self._weights(event)  # before the bar, which it stands below, is removed
            self._bar(event)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if self._weights is not None:
            self._weights.close()
        self._bar.close()


class PackingBar:
    """Tokens, documents and speed of packing a domain; with a limit on its tokens, the time left."""

    def __init__(self, name: str, max_tokens: int | None) -> None:
        self._name, self._max_tokens = name, max_tokens
        self._bar: tqdm | None = None
        self._documents_before = 0

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            self._start(progress)
        assert self._bar is not None
        seconds = max(self._bar.format_dict["elapsed"], 1e-3)
        speed = (progress.documents - self._documents_before) / seconds
        self._bar.set_postfix_str(f"{progress.documents:,} documents, {speed:,.0f}/s", refresh=False)
        self._bar.update(progress.tokens - self._bar.n)

    @property
    def started(self) -> bool:
        return self._bar is not None

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _start(self, progress: Progress) -> None:
        if progress.resumed_at is not None:
            logger.info("resuming %s at document %s", self._name, f"{progress.resumed_at:,}")
        self._documents_before = progress.documents
        self._bar = bar(
            total=self._max_tokens,
            initial=progress.tokens,
            desc=f"packing {self._name}",
            leave=not sys.stderr.isatty(),
            unit="token",
            unit_scale=True,
        )
