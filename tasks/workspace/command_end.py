"""How a command ended, for views that show it: they register what is to be done, the command calls it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

CommandEnd = Literal["finished", "stopped", "failed"]
SECONDS = 10.0  # that all of it may take
_actions: list[Callable[[CommandEnd], None]] = []


def when_command_ends(action: Callable[[CommandEnd], None]) -> None:
    """Register what is to be done when this command ends, unless it is killed. Registering it twice changes nothing."""
    if action not in _actions:
        _actions.append(action)


def command_ended(end: CommandEnd) -> None:
    """Do what is registered, in a thread: a signal handler may have interrupted the holder of a lock that it needs.

    Returns after SECONDS, whatever is still to be done then.
    """

    def act() -> None:
        for action in _actions:
            action(end)

    if _actions:
        thread = threading.Thread(target=act, name="command-end", daemon=True)
        thread.start()
        thread.join(SECONDS)


def end_by(error: BaseException | None) -> CommandEnd:
    """Return how a command ended that an error ended, or none: signals raise what is no `Exception`."""
    if error is None:
        return "finished"
    return "failed" if isinstance(error, Exception) else "stopped"
