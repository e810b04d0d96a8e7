"""The terminal: tables, and progress bars of runs and of packing."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from velocitune_core.data.packing.progress import Progress
from velocitune_core.train import events
from velocitune_core.train.progress_bar import SECONDS_BETWEEN_LINES, ProgressBar

logger = logging.getLogger(__name__)
TABLE_WIDTH = 150  # characters, in a log, which has no width of its own


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table on standard error; the columns are the keys of the first row."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="right" if isinstance(rows[0][column], int | float) else "left")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int | float) else str(value) for value in row.values()))
    console = Console(stderr=True)
    console.width = max(console.width, TABLE_WIDTH) if not console.is_terminal else console.width
    console.print(table)


def print_lines(lines: Sequence[str]) -> None:
    """Print lines on standard error."""
    console = Console(stderr=True, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


class TerminalWatcher:
    """A progress bar of a run, with the time left, which is estimated from the events since the bar was made."""

    def __init__(self) -> None:
        self._bar, self._since = ProgressBar(), time.time()

    def __call__(self, event: events.Event) -> None:
        if event.time >= self._since:  # events of earlier attempts are read at once, and would give a wrong speed
            self._bar(event)

    def flush(self) -> None:
        pass

    def close(self) -> None:
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
        self._bar = tqdm(
            total=self._max_tokens,
            initial=progress.tokens,
            desc=f"packing {self._name}",
            unit="token",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES,
            maxinterval=60,
        )
