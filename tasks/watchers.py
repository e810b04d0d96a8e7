"""Who listens while a training runs: a bar on the terminal, a progress artifact in Prefect.

A view may fail; the work goes on.
"""

from __future__ import annotations

import logging
import time
from typing import Protocol

from velocitune_core import events
from velocitune_core.progress import ProgressBar

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_UPDATES = 5.0
SECONDS_AFTER_FAILURE = 300.0  # Prefect tries a server that is gone for a minute, and the events wait meanwhile


class Watcher(Protocol):
    def __call__(self, event: events.Event) -> None: ...

    def flush(self) -> None:
        """Called when all events at hand have been told."""

    def close(self) -> None: ...


class TerminalWatcher:
    """A progress bar with the time left."""

    def __init__(self) -> None:
        self._bar = ProgressBar()

    def __call__(self, event: events.Event) -> None:
        self._bar(event)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._bar.close()


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
