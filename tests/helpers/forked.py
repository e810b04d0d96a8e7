"""Run the training program in processes forked from one that has imported torch and transformers already.

A start costs milliseconds in place of five seconds of processor time. Each run is a process of its own all the same, so
it can be stopped and killed for real. That `python -m velocitune_core.train` and `torchrun` start it too is what the
tests of `tasks.runs.launch` show.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import context, forkserver, get_context
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tasks.runs.devices import Device
    from tasks.views.watcher import Watcher

PROGRAM = "velocitune_core.train"
IMPORTS = "forked_imports"  # a name of its own: tests find the training program by its name in command lines
SECONDS_BETWEEN_POLLS = 0.005
_starting = threading.Lock()


class ForkedRun:
    """The ranks of one run, with the part of `subprocess.Popen`'s interface that the tests use.

    Signals go to every rank. As under `torchrun`, a rank that fails ends the others.

    Args:
        log: file that standard output and error are appended to; a temporary one by default.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        ranks: int = 1,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        program: str = PROGRAM,
    ) -> None:
        if log is None:
            descriptor, self._stderr = tempfile.mkstemp(prefix="stderr-")
            os.close(descriptor)
        else:
            log.touch()
            self._stderr = str(log)
        self.args = [program, *arguments]
        common = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **(environment or {})}
        self._ranks = [_start(self.args, self._stderr, common | each) for each in _environment_of_ranks(ranks)]

    @property
    def pid(self) -> int:
        """Process id of the first rank."""
        pid = self._ranks[0].pid
        assert pid is not None
        return pid

    @property
    def log(self) -> str:
        """What went to standard output and error so far."""
        return Path(self._stderr).read_text(encoding="utf-8", errors="replace")

    @property
    def returncode(self) -> int | None:
        """Exit status of the first rank that failed, or 0; None while a rank runs. Minus the signal that ended it."""
        statuses = [each.exitcode for each in self._ranks]
        if None in statuses:
            return None
        return next((status for status in statuses if status), 0)

    def poll(self) -> int | None:
        if any(each.exitcode for each in self._ranks):
            for each in self._ranks:
                each.terminate()  # does nothing to one that has ended
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        for each in self._ranks:
            if each.exitcode is None and each.pid is not None:
                os.kill(each.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[None, str]:
        """Wait for the end of every rank; return nothing for standard output and what went to standard error."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise subprocess.TimeoutExpired(self.args, timeout, stderr=Path(self._stderr).read_bytes())
            time.sleep(SECONDS_BETWEEN_POLLS)
        return None, self.log


class ForkedProcess:
    """What a launcher needs of subprocess.Popen, for a forked run.

    Args:
        program: module and arguments.
        log: open file, for standard output and error.
    """

    def __init__(
        self, program: Sequence[str], environment: Mapping[str, str], log: IO[bytes], launcher: Sequence[str] = ()
    ) -> None:
        self._run = ForkedRun(program[1:], _ranks_of(launcher), environment, log=Path(log.name), program=program[0])
        self.pid = self._run.pid

    def poll(self) -> int | None:
        return self._run.poll()

    def terminate(self) -> None:
        self._run.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._run.kill()

    def wait(self, timeout: float | None = 60) -> int | None:
        self._run.communicate(timeout or 60)
        return self._run.returncode


def run_forked(folder: Path, device: Device, launcher: list[str], watchers: Sequence[Watcher], _: int) -> int:
    """In place of `tasks.runs.torchrun.run_program`: the run in a folder, forked."""
    from tasks.runs.torchrun import follow

    process = ForkedRun([str(folder / "job.json")], _ranks_of(launcher), device.environment)
    _, log = process.communicate(120)
    (folder / "log.txt").write_text(log)
    follow(folder / "events.jsonl", 0, watchers)
    assert process.returncode is not None
    return process.returncode


def _ranks_of(launcher: Sequence[str]) -> int:
    """Return how many processes the arguments of `torchrun` ask for."""
    return int(launcher[-1].partition("=")[2]) if launcher else 1


def _start(command: list[str], stderr: str, environment: dict[str, str]) -> context.ForkServerProcess:
    """Fork one rank."""
    method = get_context("forkserver")
    method.set_forkserver_preload([IMPORTS])
    with _starting, pytest.MonkeyPatch.context() as patch:  # a process that has opened a GPU cannot be forked
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()
    process = method.Process(target=_run, args=(command, stderr, str(Path.cwd()), environment), daemon=True)
    process.start()
    return process


def _run(command: list[str], stderr: str, folder: str, environment: dict[str, str]) -> None:
    """Become `python -m` of the command, in the forked process."""
    os.chdir(folder)
    os.environ.update(environment)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    descriptor = os.open(stderr, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def _environment_of_ranks(count: int) -> list[dict[str, str]]:
    """What `torchrun` sets in the environment of each rank; nothing for a single one."""
    if count == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
