"""A step of a folder as a process of its own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from uuid import uuid4

from velocitune_core.files import write_text
from velocitune_core.job_folder.contents import RunStep
from velocitune_core.job_folder.machine import Device, environment_of
from velocitune_core.job_folder.progress import RunProgress
from velocitune_core.preload.start import start_process
from velocitune_core.train.job import Job
from velocitune_core.train.outcome import LOG, End, end_of, end_of_log, message_of
from velocitune_core.train.stop import end_in_words
from velocitune_core.training_code import record_code


class Running:
    """The process of a step, in the current folder: starts or resumes the run of a job.

    Args:
        job: with every value filled in.
        folder: of the run.
    """

    def __init__(self, step: RunStep, job: Job, folder: Path, device: Device, threads: int) -> None:
        self.step, self.device, self._folder, self._start_id = step, device, folder, uuid4().hex
        self._recipe, self._shutdown_seconds = job.fingerprint(), job.execution.shutdown_seconds
        self.progress = RunProgress(folder / "events.jsonl")
        folder.mkdir(parents=True, exist_ok=True)
        start = {"output": str(folder), "threads": threads, "start_id": self._start_id}
        write_text(folder / "job.json", job.model_copy(update=start).model_dump_json(indent=2))
        record_code(folder, job, time.time())
        program = ["velocitune_core.train", str(folder / "job.json"), "--parent", str(os.getpid())]
        with (folder / LOG).open("ab") as log:
            self._process = start_process(program, environment_of(device, threads), log)

    def poll(self) -> End | None:
        """Read its events; return how a process that has ended did."""
        status = self._process.poll()  # before reading, so that the last events are read after the end
        self.progress.read()
        return None if status is None else end_of(self._folder, self._start_id, status, self._recipe)

    def why(self) -> str:
        """Return why it has ended: its exit status, what it wrote about its end, and the end of its log."""
        status = self._process.poll()
        assert status is not None, "it has ended"
        message = message_of(self._folder, self._start_id)
        return f"({end_in_words(status)}){f': {message}' if message else ''}\n{end_of_log(self._folder)}"

    def terminate(self) -> None:
        """Signal the process to save and stop."""
        self._process.terminate()

    def wait(self) -> None:
        """Wait for its end after `terminate`; kill it if it takes longer than `execution.shutdown_seconds`."""
        try:
            self._process.wait(self._shutdown_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
