"""What a launcher has of a preloaded process, and of a run that was forked from it."""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)
PROGRAM = Path(__file__).with_name("fork_server.py")
LIBRARIES = (
    "pydantic",
    "torch",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",  # other models import little besides
)
ROOM = "." * 500  # bytes of memory for the command of a run
SECONDS_TO_PRELOAD = 180.0
SECONDS_TO_FORK = 30.0
SECONDS_FOR_STATUS = 10.0
UNKNOWN_STATUS = 1
LINES_SHOWN = 5
LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


class PreloadError(RuntimeError):
    """A preloaded process that did not become ready."""


class ForkedProcess:
    """A run, with the part of `subprocess.Popen`'s interface that launchers use.

    It is no child of this process. Its exit status comes from the process that it was forked from, and is
    UNKNOWN_STATUS if that one was killed before. Threads may share it.

    Args:
        pid: its process id.
        process: descriptor of it, by which no other process can be meant that is given the same id later.
        reports: socket on which the exit status comes.
    """

    def __init__(self, pid: int, process: int, reports: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._process, self._reports = process, reports
        self._lock = threading.RLock()  # a signal may come while its own thread holds it, and the handler take it too
        weakref.finalize(self, os.close, process)  # not before: another thread may wait on it
        reports.settimeout(SECONDS_FOR_STATUS)

    def poll(self) -> int | None:
        """Return the exit status, minus the signal that ended it; None while it runs."""
        with self._lock:
            if self.returncode is None and self._has_ended(0):
                self.returncode = self._status()
                self._reports.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status. Raises subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None and not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        status = self.poll()
        assert status is not None, "it has ended"
        return status

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            try:
                signal.pidfd_send_signal(self._process, number)
            except ProcessLookupError:
                return

    def _has_ended(self, seconds: float | None) -> bool:
        end = select.poll()  # one that threads share refuses the second
        end.register(self._process, select.POLLIN)
        return bool(end.poll(None if seconds is None else 1000 * max(0.0, seconds)))

    def _status(self) -> int:
        try:
            if report := self._reports.recv(64):  # it comes within moments of the end
                return int(report)
        except OSError:
            pass
        logger.warning("process %d: its exit status is lost with the process that it was forked from", self.pid)
        return UNKNOWN_STATUS


def _inherited() -> dict[str, Any]:
    """Return what a child process would inherit from this thread, as it is now."""
    status = Path("/proc/thread-self/status").read_text()  # os.umask would change it for all threads
    umask = next((int(line.split()[1], 8) for line in status.splitlines() if line.startswith("Umask:")), None)
    return {
        "umask": umask,
        "affinity": sorted(os.sched_getaffinity(0)),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "limits": {number: resource.getrlimit(number) for number in LIMITS},
    }


class ForkServer:
    """A preloaded process of this one, which ends with it.

    Args:
        environment: of the preloaded process; a run's may differ in variables that libraries read later.

    Raises PreloadError if it does not become ready.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._output = os.fdopen(os.memfd_create("preload"), "r+b")
        arguments = [str(theirs.fileno()), ",".join(LIBRARIES), ROOM]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM), *arguments],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
            )
        self._runs: list[ForkedProcess] = []
        self.is_stuck = False  # it did not answer in time
        self._channel.settimeout(SECONDS_TO_PRELOAD)
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        self._channel.settimeout(SECONDS_TO_FORK)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def has_runs(self) -> bool:
        """Whether the exit status of a run is still to come from it."""
        self._runs = [run for run in self._runs if run.returncode is None]
        return bool(self._runs)

    def fork(self, program: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> ForkedProcess | None:
        """Fork a run in the current folder; None if this cannot be done.

        Args:
            program: module and arguments.
            log: open file, for standard output and error.
        """
        module, *arguments = program
        request = {"module": module, "arguments": arguments, "folder": str(Path.cwd()), "environment": {**environment}}
        request |= _inherited()
        try:
            reports, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:  # this process may open no more files
            return None
        reports.settimeout(SECONDS_TO_FORK)
        try:
            with theirs:
                socket.send_fds(self._channel, [json.dumps(request).encode()], [log.fileno(), theirs.fileno()])
            message, descriptors, _, _ = socket.recv_fds(reports, 64, 1)
        except OSError as error:  # it is killed or stopped, or the request is too long
            reports.close()
            self.is_stuck = isinstance(error, TimeoutError)
            return None
        except BaseException:
            reports.close()
            raise
        if not descriptors:
            reports.close()
            if message:  # forked, but this process may open no more files
                os.kill(int(message), signal.SIGKILL)
            return None
        run = ForkedProcess(int(message), descriptors[0], reports)
        self._runs.append(run)
        return run

    def leave(self) -> None:
        """Give up this process's part in it, in a copy of the process that started it."""
        self._channel.close()

    def close(self) -> None:
        """End it. Its runs go on."""
        self._channel.close()
        self._process.kill()
        self._process.wait()
        self._output.close()

    def _wait_until_ready(self) -> None:
        try:
            message = self._channel.recv(64)
        except TimeoutError:
            raise PreloadError(f"they were not loaded after {SECONDS_TO_PRELOAD:.0f} s") from None
        except OSError as error:
            raise PreloadError(str(error)) from error
        if not message:
            self._output.seek(0)
            said = self._output.read().decode(errors="replace")
            raise PreloadError("\n".join(said.splitlines()[-LINES_SHOWN:]) or "the process was killed")
