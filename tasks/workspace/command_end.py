"""How a command ended, for views that show it: they register what is to be done, the command calls it."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
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
            try:
                action(end)
            except Exception:  # the others are done all the same
                say(traceback.format_exc())

    if _actions:
        thread = threading.Thread(target=act, name="command-end", daemon=True)
        thread.start()
        thread.join(SECONDS)


def say(text: str) -> None:
    """Write to standard error, waiting a second at most: a terminal may be closed or paused, a pipe full."""

    def write() -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    thread = threading.Thread(target=write, name="say", daemon=True)
    thread.start()
    thread.join(1)


def end_by(error: BaseException | None) -> CommandEnd:
    """Return how a command ended that an error ended, or none: signals raise what is no `Exception`."""
    if error is None:
        return "finished"
    return "failed" if isinstance(error, Exception) else "stopped"
