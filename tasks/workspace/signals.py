"""How signals end a command: no run starts any more, runs save and stop, and all its processes end, in bounded time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress

from tasks.workspace.command_end import command_ended, say
from velocitune_core.config import Execution

SECONDS_FOR_PREFECT = 30  # to report to a server that was not started by this command, once runs have stopped
_OVER = b"\0"  # no signal
_REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}


class _Ending:
    """Which thread ends this command, once one does."""

    def __init__(self) -> None:
        self._begins = threading.RLock()  # a second signal may come while the handler of the first one has it
        self.by: threading.Thread | None = None
        self.pipe: int | None = None  # where Python writes the numbers of signals

    def begin(self) -> bool:
        """Return whether the present thread is the first to end the command."""
        if not self._begins.acquire(blocking=False):  # for good: no thread gives it back
            return False
        first = self.by is None
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
        _end(signal.Signals(number), time.monotonic() + shutdown_seconds())
    while _ENDING.by is not threading.current_thread():  # which goes on if a signal comes while it ends the command
        time.sleep(1)  # until the other thread ends this process


def _watch() -> None:
    """Start a thread that receives every SIGTERM, whoever handles it: Python writes signals' numbers to a pipe."""
    numbers, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    _ENDING.pipe = written
    threading.Thread(target=_end_when_terminated, args=(numbers,), name="signals", daemon=True).start()


def no_longer_watch() -> None:
    """End the thread that receives every SIGTERM: a flow is over, and signals are handled by this module again."""
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
    deadline = time.monotonic() + shutdown_seconds()
    if _names_server():
        deadline += SECONDS_FOR_PREFECT
        time.sleep(max(0.0, deadline - time.monotonic()))
    if _ENDING.begin():
        _end(signal.SIGTERM, deadline)


def _names_server() -> bool:
    """Return whether Prefect reports to a server that was started apart from this command."""
    if "prefect" not in sys.modules:
        return False
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def _end(number: signal.Signals, deadline: float) -> None:
    """End all processes and exit, whatever fails: not by sys.exit, which would wait for threads."""
    try:
        try:
            _end_processes(_REASONS[number], deadline)
        finally:
            command_ended("stopped")
    except Exception:
        say(traceback.format_exc())
    finally:
        os._exit(128 + number)


def _end_processes(reason: str, deadline: float) -> None:
    """Stop runs, say so, and end all child processes."""
    import psutil

    from velocitune_core.preload.start import end_runs, stop_runs

    preloaded = stop_runs()
    children = [each for each in psutil.Process().children(recursive=True) if each.pid not in preloaded]
    for child in children:
        with suppress(psutil.Error):
            child.terminate()
    say(f"\n{reason}: runs save and stop; give the same command again to resume them\n")
    alive = psutil.wait_procs(children, timeout=max(0.0, deadline - time.monotonic()))[1]
    for child in alive:
        with suppress(psutil.Error):
            child.kill()
    end_runs(deadline - time.monotonic())


def shutdown_seconds() -> int:
    """Return how long runs may take to save, as configured, or by default if params.yaml cannot be read now."""
    try:
        from tasks.workspace.params_file import read_params

        return read_params().execution.shutdown_seconds
    except Exception:  # a signal may come in the middle of an import, too
        return Execution().shutdown_seconds
