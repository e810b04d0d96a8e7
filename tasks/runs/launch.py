"""Run a job: take the result of a finished run, or start the training program and return its result."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tasks.runs.devices import leased_device
from tasks.runs.run_folder import (
    alone_in_run_folder,
    is_finished,
    open_run_folder,
    read_result,
    record_start,
    run_folder,
)
from tasks.runs.torchrun import follow, run_program, torchrun
from tasks.runs.verify_data import check_packed
from tasks.views.watcher import Watcher
from velocitune_core.checkpoint.names import saved_checkpoints
from velocitune_core.config import Resources
from velocitune_core.contracts import EvaluationResult, TrainResult
from velocitune_core.evaluation.evaluation_job import EvaluationJob
from velocitune_core.train.events import Measured, read_events
from velocitune_core.train.extension import discard_checkpoints
from velocitune_core.train.job import Job, TrainJob
from velocitune_core.train.outcome import End, end_of, end_of_log, message_of
from velocitune_core.train.stop import STOPPED, end_in_words

if TYPE_CHECKING:
    from prefect import State, Task
    from prefect.client.schemas.objects import TaskRun

logger = logging.getLogger(__name__)
FULL_DISK_BYTES = 10**6


class TrainingFailedError(RuntimeError):
    """A run that did not finish; its checkpoints stay, and the next start goes on from the newest."""


class TrainingStoppedError(TrainingFailedError):
    """A run that was stopped on request: it was cancelled, or its process received a signal."""


class TrainingRefusedError(TrainingFailedError):
    """A run whose job or data cannot work: another start would be refused too."""


def may_be_retried(task: Task[Any, Any], run: TaskRun, state: State) -> bool:
    """For Prefect's `retry_condition_fn`: a run that was stopped on request or refused is not started again."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, TrainingStoppedError | TrainingRefusedError | ValueError)  # ConfigError and the like


def run_training(
    job: TrainJob, resources: Resources, watchers: Sequence[Watcher] = (), *, spread: bool = False
) -> TrainResult:
    """Train, or take the result of a finished run of the same recipe. Arguments and errors are those of `run_job`."""
    return read_result(run_job(job, resources, watchers, spread=spread), job)


def run_evaluation(
    job: EvaluationJob, resources: Resources, watchers: Sequence[Watcher] = (), *, spread: bool = False
) -> EvaluationResult:
    """Evaluate a model, or take the result of a finished evaluation. Arguments and errors are those of `run_job`."""
    return EvaluationResult.read(run_job(job, resources, watchers, spread=spread) / "result.json")


def run_job(job: Job, resources: Resources, watchers: Sequence[Watcher] = (), *, spread: bool = False) -> Path:
    """Run a job to its end in a process of its own, unless a run of the same recipe is finished; return its folder.

    If a process still runs in the job's folder, as one whose launcher was killed, its end is waited for. Of a finished
    run only the checkpoints stay that one with a larger token budget may go on from.

    Args:
        spread: use as many processes on as many nodes as `resources` has; else one, on one device.

    Raises TrainingFailedError with the end of the process's log if it does not finish, TrainingStoppedError if it was
    stopped on request, TrainingRefusedError if it cannot work, and ConfigError for packed files that differ from the
    manifest.
    """
    start_id, seconds = uuid4().hex, job.execution.shutdown_seconds
    try:
        if is_finished(job):
            return _taken(job, watchers)
        with alone_in_run_folder(job):
            if is_finished(job):  # by the process that was waited for
                return _taken(job, watchers)
            check_packed(job.files())
            folder = open_run_folder(job)
        with leased_device(resources, resources.processes if spread else 1) as device:
            start = {"output": str(folder), "threads": device.threads, "start_id": start_id}
            record_start(folder, job.model_copy(update=start))
            launcher = torchrun(resources, folder.name, seconds) if spread else []
            status = run_program(folder, device, launcher, watchers, seconds)
    finally:
        for watcher in watchers:
            watcher.close()
    if (ended := end_of(folder, start_id, status, job.fingerprint())) != "finished":
        raise failure(folder, start_id, ended, status)
    discard_checkpoints(folder, job)
    return folder


def _taken(job: Job, watchers: Sequence[Watcher]) -> Path:
    """Show the watchers a finished run, and return its folder."""
    logger.info("%s: finished before, in %s; taking its result", job.name, run_folder(job))
    follow(run_folder(job) / "events.jsonl", 0, watchers)
    discard_checkpoints(run_folder(job), job)
    return run_folder(job)


def failure(folder: Path, start_id: str, ended: End, status: int) -> TrainingFailedError:
    """Return the error of a start that did not finish, with its own message and the end of its log."""
    message, free = message_of(folder, start_id), disk_usage(folder).free
    why = f": {message}" if message else ""
    if not why and free < FULL_DISK_BYTES:  # neither an outcome nor a log could be written
        why = f": {free / 1e6:.1f} MB are free on its disk"
    if ended == "refused":
        return TrainingRefusedError(f"{folder.name} was refused{why}\n{end_of_log(folder)}")
    error = TrainingStoppedError if ended == "stopped" else TrainingFailedError
    how = "" if status == STOPPED else f" ({end_in_words(status)})"
    return error(f"{folder.name} {ended}{how}{why}\n{_what_stays(folder)} {end_of_log(folder)}")


def _what_stays(folder: Path) -> str:
    """Return the sentence on where the next start of a run begins."""
    saved = "Its checkpoints" if saved_checkpoints(folder / "checkpoints") else ""
    if not saved and any(isinstance(event, Measured) for event in read_events(folder / "events.jsonl")):
        saved = "The losses that it has measured"
    if not saved:
        return "It has saved nothing yet; running the stage again starts it from its beginning."
    return f"{saved} stay in {folder}; running the stage again goes on from there."
