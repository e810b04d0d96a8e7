"""How signals end a command: no run starts any more, runs save and stop, and all its processes end, in bounded time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress

from tasks.workspace.command_end import command_ended

SECONDS_FOR_PREFECT = 30  # to report to a server that was not started by this command, once runs have stopped
_OVER = b"\0"  # no signal
_REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}


class _Ending:
    """Which thread ends this command, once one does."""

    def __init__(self) -> None:
        self._begins = threading.Lock()
        self.by: threading.Thread | None = None
        self.pipe: int | None = None  # where Python writes the numbers of signals

    def begin(self) -> bool:
        """Return whether the present thread is the first to end the command."""
        first = self._begins.acquire(blocking=False)
        if first:
            self.by = threading.current_thread()
        return first


_ENDING = _Ending()


def end_on_signals() -> None:
    """Make Ctrl-C, SIGTERM and a closed terminal end this command; its exit status is then 128 + the signal's number.

    Prefect takes SIGTERM over while a flow runs, and then reports to its server, for minutes if that is a temporary one
    which the same signal has ended: `timeout`, systemd and Slurm signal all processes. So a thread ends the command.
    """
    import psutil  # noqa: F401 - not in the handler, which may come in the middle of an import

    import velocitune_core.preload.start  # noqa: F401

    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # `nohup` ignores it
        signal.signal(signal.SIGHUP, _on_signal)
    _watch()


def _on_signal(number: int, _frame: object) -> None:
    if _ENDING.begin():
        _end(signal.Signals(number))
    while _ENDING.by is not threading.current_thread():  # which goes on if a signal comes while it ends the command
        time.sleep(1)  # until the other thread ends this process


def _watch() -> None:
    """Start a thread that sees every SIGTERM, whoever handles it: Python writes the numbers of signals to a pipe."""
    numbers, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    _ENDING.pipe = written
    threading.Thread(target=_end_when_terminated, args=(numbers,), name="signals", daemon=True).start()


def no_longer_watch() -> None:
    """End the thread that sees every SIGTERM: a flow is over, and signals are handled by this module again."""
    if _ENDING.pipe is not None:
        signal.set_wakeup_fd(-1)
        os.write(_ENDING.pipe, _OVER)
        os.close(_ENDING.pipe)
        _ENDING.pipe = None


def _end_when_terminated(numbers: int) -> None:
    while (number := os.read(numbers, 1)) != bytes([signal.SIGTERM]):
        if number == _OVER:
            os.close(numbers)
            return
    if _names_server():
        time.sleep(_shutdown_seconds() + SECONDS_FOR_PREFECT)
    if _ENDING.begin():
        _end(signal.SIGTERM)


def _names_server() -> bool:
    """Return whether Prefect reports to a server that was started apart from this command."""
    if "prefect" not in sys.modules:
        return False
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def _end(number: signal.Signals) -> None:
    """Stop runs, end all child processes, and exit: not by sys.exit, which would wait for threads."""
    import psutil

    from velocitune_core.preload.start import end_runs, stop_runs

    with suppress(OSError):  # of a terminal that is gone
        sys.stderr.write(f"\n{_REASONS[number]}: runs save and stop; give the same command again to resume them\n")
    deadline = time.monotonic() + _shutdown_seconds()
    preloaded = stop_runs()
    children = [each for each in psutil.Process().children(recursive=True) if each.pid not in preloaded]
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    alive = psutil.wait_procs(children, timeout=deadline - time.monotonic())[1]
    for child in alive:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    end_runs(deadline - time.monotonic())
    command_ended("stopped")
    os._exit(128 + number)


def _shutdown_seconds() -> int:
    """Return how long runs may take to save, as configured, or by default if params.yaml cannot be read now."""
    from tasks.workspace.params_file import read_params
    from velocitune_core.config import ConfigError, Execution

    try:
        return read_params().execution.shutdown_seconds
    except ConfigError:
        return Execution().shutdown_seconds
