"""A step of a folder as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from velocitune_core.files import write_text
from velocitune_core.job_folder.contents import RUNS, InitialStep, TrainStep
from velocitune_core.job_folder.machine import Device, environment_of
from velocitune_core.job_folder.progress import RunProgress
from velocitune_core.train.job import TrainJob
from velocitune_core.training_code import record_code

SECONDS_TO_SAVE = 60.0  # after SIGTERM
LOG_LINES_SHOWN = 15


def start_process(program: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start `python -m` of a module with its arguments."""
    command = [sys.executable, "-m", *program]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class Running:
    """The process of a run, or of the measurement of the initial losses, in the current folder.

    Args:
        folder: of its log and its events.
        program: module and arguments.
    """

    def __init__(
        self, step: TrainStep | InitialStep, folder: Path, program: Sequence[str], device: Device, threads: int
    ) -> None:
        self.step, self.device, self._folder = step, device, folder
        self.progress = RunProgress(folder / "events.jsonl")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("ab") as log:
            self._process = start_process(program, environment_of(device, threads), log)

    @classmethod
    def train(cls, step: TrainStep, job: TrainJob, folder: Path, device: Device, threads: int) -> Self:
        """Start or resume a run: write its job.json and code.json, and start the training program."""
        placed = job.model_copy(update={"output": str(folder), "threads": threads})
        write_text(folder / "job.json", placed.model_dump_json(indent=2))
        record_code(folder, job.strategy.name, time.time())
        program = ["velocitune_core.train", str(folder / "job.json"), "--parent", str(os.getpid())]
        return cls(step, folder, program, device, threads)

    @classmethod
    def measure(cls, step: InitialStep, device: Device, threads: int) -> Self:
        """Start measuring the initial losses."""
        return cls(step, RUNS / step.name, ["velocitune_core.job_folder.measure", step.job], device, threads)

    @property
    def memory_bytes(self) -> int:
        """Estimate of what it takes of its device; 0 if it is unknown."""
        return self.step.memory_bytes if isinstance(self.step, TrainStep) else 0

    def poll(self) -> int | None:
        """Read its events; return the exit status of a process that has ended."""
        status = self._process.poll()  # before reading, so that the last events are read after the end
        self.progress.read()
        return status

    def end_of_log(self) -> str:
        """Return where its log is, and the last lines of it."""
        log = self._folder / "log.txt"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join([f"the end of {log}:", *lines])

    def terminate(self) -> None:
        """Ask the process to save and stop."""
        self._process.terminate()

    def wait(self) -> None:
        """Wait for its end after `terminate`; kill it if it does not end."""
        try:
            self._process.wait(SECONDS_TO_SAVE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
