"""Who listens while a training runs: a bar on the terminal, a progress artifact in Prefect.

A view may fail; the work goes on.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Protocol

from tqdm import tqdm

from velocitune_core.data.packing.packer import Progress
from velocitune_core.train import events
from velocitune_core.train.progress_bar import SECONDS_BETWEEN_LINES, ProgressBar

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_UPDATES = 5.0
SECONDS_AFTER_FAILURE = 300.0  # Prefect tries a server that is gone for a minute, and the events wait meanwhile


class Watcher(Protocol):
    def __call__(self, event: events.Event) -> None: ...

    def flush(self) -> None:
        """Called when all events at hand have been told."""

    def close(self) -> None: ...


class TerminalWatcher:
    """A progress bar with the time left, of what happens from now on: an earlier life would count as no time at all."""

    def __init__(self) -> None:
        self._bar, self._since = ProgressBar(), time.time()

    def __call__(self, event: events.Event) -> None:
        if event.time >= self._since:
            self._bar(event)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._bar.close()


class PackingBar:
    """Tokens, documents and speed of packing a domain; with a cap on its tokens, the time left."""

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


class PrefectWatcher:
    """A progress artifact, brought up to date every few seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._artifact: object = None
        self._total = 0  # not known before the training says so
        self._step = 0
        self._next_update = 0.0
        self._failing = False

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Started):
            self._total = event.total_steps
        self._step = event.step

    def flush(self) -> None:
        if time.monotonic() >= self._next_update:
            self._update()

    def close(self) -> None:
        if not self._failing:
            self._update()

    def _update(self) -> None:
        if not self._total:
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        percent = 100.0 * self._step / self._total
        try:
            if self._artifact is None:
                key = f"progress-{self._name}".lower().replace("_", "-")
                description = f"{self._name}: steps of {self._total}"
                self._artifact = create_progress_artifact(percent, key=key, description=description)
            else:
                update_progress_artifact(self._artifact, progress=percent)  # pyrefly: ignore
            self._failing = False
        except Exception as error:  # the server may be gone; the training is not
            self._failing = True
            logger.warning("Prefect did not take the progress of %s: %s", self._name, error)
        self._next_update = time.monotonic() + (SECONDS_AFTER_FAILURE if self._failing else SECONDS_BETWEEN_UPDATES)
