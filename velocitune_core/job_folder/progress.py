"""What a folder's runs report while they run: a line for each of them, with the time that is left."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from velocitune_core.style.text import duration
from velocitune_core.train.events import Evaluated, Started, Stepped, read_events_from


class RunProgress:
    """The progress of one run, from the events that this attempt appends to its file."""

    def __init__(self, events: Path) -> None:
        self._events = events
        self._offset = events.stat().st_size if events.exists() else 0
        self._started = time.monotonic()
        self._first_step: int | None = None
        self.step = 0
        self.total_steps = 0
        self._loss: float | None = None

    def read(self) -> None:
        """Take in what was logged since the last call."""
        for event, behind in read_events_from(self._events, self._offset):
            self._offset = behind
            self.step = max(self.step, event.step)
            if isinstance(event, Started):
                self.total_steps, self._first_step, self._started = event.total_steps, event.step, time.monotonic()
            elif isinstance(event, Stepped):
                self._loss = event.loss
            elif isinstance(event, Evaluated):
                self._loss = sum(event.losses.values()) / len(event.losses)

    @property
    def steps_taken(self) -> int:
        """Optimizer steps of this attempt."""
        return 0 if self._first_step is None else self.step - self._first_step

    def line(self) -> str:
        """Return where the run is and how long it will take."""
        if self._first_step is None:
            return "starting"
        text = f"step {self.step} of {self.total_steps}"
        if self._loss is not None:
            text += f", {self._loss:.3f} nats"
        if self.steps_taken:
            left = (self.total_steps - self.step) * (time.monotonic() - self._started) / self.steps_taken
            text += f", {duration(left, rough=True)} left"
        return text


def say(line: str) -> None:
    """Print a line, with the time of day."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
    sys.stdout.flush()
