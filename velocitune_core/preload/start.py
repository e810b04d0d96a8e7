"""Start a run as a process: forked from a preloaded one where that is safe, else by itself."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
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
    """
    whole = {**environment, **short_spin(environment)}  # libgomp reads it as torch is imported
    if CAN_FORK and not launcher and os.environ.get(SWITCH) != "0":
        process = _SERVERS.fork(program, whole, log)
        if process is not None:
            return process
    command = [sys.executable, *launcher, "-m", *program]
    return subprocess.Popen(command, env=whole, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class _Servers:
    """The preloaded processes of this one, by their environment. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[frozenset[tuple[str, str]], ForkServer | None] = {}  # None: it did not become ready

    def fork(self, program: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> ForkedProcess | None:
        """Fork a run, from a new preloaded process if there is none or it has ended; None if this cannot be done."""
        for _ in range(2):  # it may end after it was looked at
            if (server := self._ready(environment)) is None:
                return None
            process = server.fork(program, environment, log)
            if process is not None or server.is_running():
                return process
        return None

    def leave(self) -> None:
        """Forget them, in a copy of the process that started them: they end with that one."""
        for server in filter(None, self._servers.values()):
            server.leave()
        self._lock = threading.Lock()  # another thread may have held it
        self._servers = {}

    def close(self) -> None:
        """End all of them."""
        for server in filter(None, self._servers.values()):
            server.close()
        self._servers.clear()

    def _ready(self, environment: Mapping[str, str]) -> ForkServer | None:
        key = frozenset(item for item in environment.items() if _is_read_early(item[0]))
        with self._lock:  # runs that are started at once wait for one process
            server = self._servers.get(key)
            if server is not None and not server.is_running():
                server.close()
                del self._servers[key]
            if key not in self._servers:
                self._servers[key] = _start(environment)
            return self._servers[key]


def _start(environment: Mapping[str, str]) -> ForkServer | None:
    try:
        os.close(os.pidfd_open(os.getpid()))  # raises OSError where the system has none
        return ForkServer(environment)
    except (PreloadError, OSError) as error:
        logger.warning("runs are not forked from a process that has loaded their libraries, but load them: %s", error)
        return None


def _is_read_early(name: str) -> bool:
    return name not in READ_LATER and not name.startswith(READ_BY_OTHERS)


_SERVERS = _Servers()
atexit.register(_SERVERS.close)
if CAN_FORK:
    os.register_at_fork(after_in_child=_SERVERS.leave)
