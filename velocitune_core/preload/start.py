"""Start a run as a process: forked from a preloaded one where that is safe, else by itself."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from velocitune_core.parallel.openmp import short_spin
from velocitune_core.preload.forked_process import ForkedProcess, ForkServer, PreloadError

logger = logging.getLogger(__name__)
SWITCH = "VELOCITUNE_PRELOAD"  # 0: every run imports everything itself
CAN_FORK = sys.platform == "linux" and hasattr(os, "pidfd_open")

# Variables that no library has read before a run uses it. With any other one of another value, a library imported
# earlier could hold the old value.
READ_LATER = {"CUDA_VISIBLE_DEVICES", "TORCHINDUCTOR_CACHE_DIR", "OLDPWD", "PWD", "SHLVL", "_"}
READ_BY_OTHERS = ("DVC_", "GIT_", "MLFLOW_", "PREFECT_", "PYTEST_", "RAY_", "VELOCITUNE_")  # not by a training


class StartRefusedError(RuntimeError):
    """A run that was to be started while the command ends."""


class Process(Protocol):
    """What launchers use of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def start_process(
    program: Sequence[str], environment: Mapping[str, str], log: IO[bytes], launcher: Sequence[str] = ()
) -> Process:
    """Start `python -m` of a module with its arguments, in the current folder, and return the process.

    Args:
        program: module and arguments.
        log: open file, for standard output and error.
        launcher: arguments of Python that start several processes of the program; none for a single one.

    Raises StartRefusedError after `stop_runs`.
    """
    _SERVERS.check_open()
    whole = {**environment, **short_spin(environment)}  # libgomp reads it as torch is imported
    if CAN_FORK and not launcher and os.environ.get(SWITCH) != "0":
        forked = _SERVERS.fork(program, whole, log)
        if forked is not None:
            return forked
        _SERVERS.check_open()
    command = [sys.executable, *launcher, "-m", *program]
    process = subprocess.Popen(command, env=whole, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    _SERVERS.check_open(process)
    return process


def stop_runs() -> set[int]:
    """Let no run start any more, and have those that are forked save and stop.

    For the end of a command. Returns the ids of the processes that `end_runs` then ends: runs, and those that they
    were forked from, which ignore SIGTERM because they report the runs' exit statuses.
    """
    return _SERVERS.stop_runs()


def end_runs(seconds: float) -> None:
    """Wait so long for the end of forked runs after `stop_runs`, kill those that are left, and end the others."""
    _SERVERS.end_runs(seconds)


class _Servers:
    """The preloaded processes of this one, by their environment. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[frozenset[tuple[str, str]], ForkServer | None] = {}  # None: it did not become ready
        self._retired: list[ForkServer] = []  # get no requests any more, but will report how their runs end
        self._runs: set[ForkedProcess] = set()  # that may not have ended
        self._is_ending = False

    def fork(self, program: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> ForkedProcess | None:
        """Fork a run, from a new preloaded process if there is none or it has ended; None if this cannot be done."""
        for _ in range(2):  # it may end after it was looked at
            if (server := self._ready(environment)) is None:
                return None
            process = server.fork(program, environment, log)
            if process is not None:
                self._runs.difference_update([run for run in list(self._runs) if run.returncode is not None])
                self._runs.add(process)
                self.check_open(process)
            if process is not None or (server.is_running() and not server.is_stuck):
                return process
        return None

    def check_open(self, process: Process | None = None) -> None:
        """Raise StartRefusedError after `stop_runs`, and terminate what was being started meanwhile."""
        if self._is_ending:
            if process is not None:
                process.terminate()
            raise StartRefusedError("the command was interrupted; no run is started any more")

    def stop_runs(self) -> set[int]:
        """Refuse starts and terminate runs; return the ids of runs and servers."""
        self._is_ending = True
        runs = list(self._runs)
        for run in runs:
            run.terminate()
        return {each.pid for each in [*runs, *self._all()]}

    def end_runs(self, seconds: float) -> None:
        """Wait for the runs, kill those that are left, and close the servers."""
        deadline = time.monotonic() + seconds
        while runs := [run for run in list(self._runs) if run.poll() is None]:  # and those that were in the making
            with suppress(subprocess.TimeoutExpired):
                runs[0].wait(deadline - time.monotonic())
            if time.monotonic() >= deadline:
                for run in runs:
                    run.kill()
                break
        self.close()

    def leave(self) -> None:
        """Drop all references to them, in a copy of the process that started them: they end with that one."""
        for server in self._all():
            server.leave()
        self._lock = threading.Lock()  # another thread may have held it
        self._servers, self._retired, self._runs, self._is_ending = {}, [], set(), False

    def close(self) -> None:
        """End all of them."""
        for server in self._all():
            server.close()
        self._servers.clear()
        self._retired.clear()

    def _all(self) -> list[ForkServer]:
        return [*filter(None, list(self._servers.values())), *self._retired]

    def _ready(self, environment: Mapping[str, str]) -> ForkServer | None:
        key = frozenset([*filter(_is_read_early, environment.items()), *_meant_from_here(environment)])
        with self._lock:  # runs that are started at once wait for one process
            server = self._servers.get(key)
            if server is not None and (server.is_stuck or not server.is_running()):
                self._retired.append(server)
                del self._servers[key]
            self._close_unused()
            if key not in self._servers:
                self._servers[key] = _start(environment)
            return self._servers[key]

    def _close_unused(self) -> None:
        for server in list(self._retired):
            if not server.is_running() or not server.has_runs():
                self._retired.remove(server)
                server.close()


def _start(environment: Mapping[str, str]) -> ForkServer | None:
    try:
        os.close(os.pidfd_open(os.getpid()))  # raises OSError where the system has none
        return ForkServer(environment)
    except (PreloadError, OSError) as error:
        logger.warning(
            "until this command ends, runs are not forked from a process that has loaded their libraries, "
            "but load them: %s",
            error,
        )
        return None


def _meant_from_here(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the current folder, as a variable, if libraries are looked for relative to it."""
    found = environment.get("PYTHONPATH", "")
    relative = found and not all(map(os.path.isabs, found.split(os.pathsep)))
    return [("PWD", str(Path.cwd()))] if relative else []


def _is_read_early(variable: tuple[str, str]) -> bool:
    name, _ = variable
    return name not in READ_LATER and not name.startswith(READ_BY_OTHERS)


_SERVERS = _Servers()
atexit.register(_SERVERS.close)
if CAN_FORK:
    os.register_at_fork(after_in_child=_SERVERS.leave)
