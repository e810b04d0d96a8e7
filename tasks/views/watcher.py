"""What follows the events of a run. A view may fail; the run continues."""

from __future__ import annotations

from typing import Protocol

from velocitune_core.train import events


class Watcher(Protocol):
    """Is called with every event of a run, in order."""

    def __call__(self, event: events.Event) -> None: ...

    def flush(self) -> None:
        """Show what has been passed so far; called after each batch of events."""

    def close(self) -> None:
        """Called once, after the last event."""
