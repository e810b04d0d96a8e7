"""Exit statuses of the training program, and when it stops before the last step."""

from __future__ import annotations

import os
import signal

FINISHED, REFUSED, STOPPED = 0, 2, 75  # 75 is EX_TEMPFAIL of sysexits.h: try again


class Interrupted(Exception):
    """The run stopped on request; started again, it resumes there."""


class StopRequest:
    """Callable that is true once the run must stop: after SIGTERM or SIGINT, or once its launcher has exited.

    Installs handlers for both signals, so it must be made in the main thread.

    Args:
        parent: process id of the launcher; None if nothing but a signal stops the run.
    """

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._is_child = os.getppid() == parent  # False under torchrun, which is the parent then
        self._signalled = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def __call__(self) -> bool:
        return self._signalled or (self._parent is not None and self._has_exited(self._parent))

    def _has_exited(self, parent: int) -> bool:
        if self._is_child:  # orphans are re-parented at once, before the parent is reaped
            return os.getppid() != parent
        try:
            os.kill(parent, 0)  # signal 0 only tests whether the process exists
        except ProcessLookupError:
            return True
        return False

    def _handle(self, number: int, frame: object) -> None:
        self._signalled = True
