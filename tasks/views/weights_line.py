"""The domain weights of a run as they move: a live line in a terminal, a few lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm

from velocitune_core.style.text import percent
from velocitune_core.train import events
from velocitune_core.train.progress_bar import bar

LINES_IN_A_LOG = 4  # of a run, after equal parts of its steps


class WeightsLine:
    """Listener that shows the weights after each update, if they move at all, and the mean held-out loss."""

    def __init__(self) -> None:
        self._name, self._total_steps = "", 0
        self._start: Mapping[str, float] | None = None
        self._loss = ""
        self._lines = 0
        self._line: tqdm | None = None

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Started():
                self._name, self._total_steps = event.name, event.total_steps
            case events.Evaluated():
                self._loss = f", mean loss {sum(event.losses.values()) / len(event.losses):.3f}"
            case events.Finished():
                self.close()
            case events.Reweighted():
                if self._start is None:
                    self._start = event.weights
                elif event.weights != self._start:
                    self._show(event)

    def close(self) -> None:
        """Remove the line."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _show(self, event: events.Reweighted) -> None:
        assert self._start is not None
        text = f"weights: {weights_text(self._start, event.weights)}{self._loss}"
        if sys.stderr.isatty():
            if self._line is None:
                self._line = bar(bar_format="{desc}", leave=False)
            self._line.set_description_str(text)
            return
        part = LINES_IN_A_LOG * event.step // self._total_steps if self._total_steps else 0
        if part > self._lines:
            self._lines = part
            tqdm.write(f"{self._name}, step {event.step} of {self._total_steps}, {text}", file=sys.stderr)


def weights_text(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Return each domain's weight before and after, that which moved most first."""
    moved = sorted(before, key=lambda name: (-abs(after[name] - before[name]), name))
    return ", ".join(f"{name} {percent(before[name]).removesuffix(' %')} → {percent(after[name])}" for name in moved)
