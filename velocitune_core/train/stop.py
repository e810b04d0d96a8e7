"""Exit statuses, also in words, and why the training program stops before the last step."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

FINISHED, REFUSED, STOPPED = 0, 2, 75  # 75 is EX_TEMPFAIL of sysexits.h: try again
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # SIGHUP: the terminal was closed
# A process that such a signal ends before it handles them: minus its number, as Python reports it, or as a shell does.
ENDED_BY_STOP_SIGNAL = frozenset(status for number in STOP_SIGNALS for status in (-number, 128 + number))


def end_in_words(status: int) -> str:
    """Return an exit status in words: minus a signal, as `subprocess` has it, or 128 + a signal, as shells have it."""
    try:
        number = signal.Signals(-status if status < 0 else status - 128)
    except ValueError:  # no signal
        return f"exit status {status}"
    if status > 0:
        return f"exit status {status}, as after {number.name}"
    return f"killed by {number.name}{': often out of memory' if number == signal.SIGKILL else ''}"


class Interrupted(Exception):
    """The run stopped on request; started again, it resumes there."""


class TrainingError(RuntimeError):
    """A run that cannot continue."""


class StopRequest:
    """Callable that is true once the run must stop: after SIGTERM, SIGINT or SIGHUP, or once its launcher has exited.

    `torchrun`, where it started this process, is a launcher too.

    Installs handlers for these signals, so it must be made in the main thread. A SIGHUP that is ignored, as under
    nohup, stays ignored. Until `watch` is called, nothing but a signal stops the run.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._launcher: int | None = None
        self._parent: int | None = None
        self._launchers_end: select.poll | None = None
        ignored = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else []
        self._signals = [number for number in STOP_SIGNALS if number not in ignored]
        self._install(self._handle)

    def watch(self, launcher: int | None) -> None:
        """Stop the run, too, once its launcher has exited, of which this is the process id; None if it has none."""
        self._launcher = launcher
        # Under torchrun, which is the parent then, the launcher is the grandparent. A process that this one was forked
        # from is its parent too, but may end before it.
        is_started_by_it = launcher == os.getppid() or "TORCHELASTIC_RUN_ID" in os.environ
        self._parent = os.getppid() if is_started_by_it else None
        self._launchers_end = None if launcher is None else _end_of(launcher)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let these signals end the process, inside: no handler is called while it waits in a library that blocks."""
        self._install(signal.SIG_DFL)
        try:
            yield
        finally:
            self._install(self._handle)

    def __call__(self) -> bool:
        return self._signalled or self._parent_has_exited() or self._launcher_has_exited()

    def _parent_has_exited(self) -> bool:
        return self._parent is not None and os.getppid() != self._parent  # orphans are re-parented at once

    def _launcher_has_exited(self) -> bool:
        if self._launcher is None or self._launcher == self._parent:
            return False
        if self._launchers_end is not None:
            return bool(self._launchers_end.poll(0))
        try:
            os.kill(self._launcher, 0)  # signal 0 only tests whether the process exists
        except (ProcessLookupError, PermissionError):  # or another user's process has its id now
            return True
        return False

    def _install(self, handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
        for number in self._signals:
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True


def _end_of(pid: int) -> select.poll | None:
    """Return what polls whether a process has ended, also while its parent has not read its status.

    None if it has ended already, or the system has no descriptors of processes.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
    end = select.poll()
    end.register(descriptor, select.POLLIN)
    return end
