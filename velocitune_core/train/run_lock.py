"""One run at a time in a run folder: a lock that the system frees when its process ends, in whatever way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout

from velocitune_core.files import describe_holder, write_holder
from velocitune_core.train.system_lock import system_lock

SECONDS_BETWEEN_TRIES = 0.5


class RunLock:
    """The right of one process to write into a run folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._holder = folder, folder / "holder.json"
        self._lock = system_lock(folder / "run.lock", timeout=0)
        self._named = ""

    def acquire(self) -> bool:
        """Take the lock if it is free, and return whether it is ours. Makes the folder if it is missing.

        Raises ConfigError if it cannot be made.
        """
        try:
            self._lock.acquire()
        except Timeout:
            return False
        with suppress(OSError):  # on a full disk the holder stays unnamed
            write_holder(self._holder)
        return True

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        self._lock.release()

    def news(self) -> str | None:
        """Return whom this process waits for, once for each; None if that has been said."""
        holder = describe_holder(self._holder) or "another process"
        if holder == self._named:
            return None
        self._named = holder
        return f"waiting for {self._folder}, in which {holder} is running; it goes on when that one has ended"


@contextmanager
def alone_in(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a run folder, after waiting until no other process does; `say` is called with a line for each."""
    lock = RunLock(folder)
    while not lock.acquire():
        if news := lock.news():
            say(news)
        time.sleep(SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        lock.release()
