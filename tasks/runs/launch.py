"""Run a job: take the result of a finished run, or start the training program and return its result."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.runs.devices import leased_device
from tasks.runs.run_folder import is_finished, open_run_folder, record_start, run_folder
from tasks.runs.torchrun import follow, run_program, torchrun
from tasks.runs.verify_data import check_packed
from tasks.views.watcher import Watcher
from velocitune_core.config import Resources
from velocitune_core.contracts import EvaluationResult, TrainResult
from velocitune_core.evaluation.evaluation_job import EvaluationJob
from velocitune_core.train.job import Job, TrainJob
from velocitune_core.train.stop import STOPPED

if TYPE_CHECKING:
    from prefect import State, Task
    from prefect.client.schemas.objects import TaskRun

logger = logging.getLogger(__name__)
LOG_LINES_SHOWN = 15


class TrainingFailedError(RuntimeError):
    """A run that did not finish; its checkpoints stay, and the next start goes on from the newest."""


class TrainingStoppedError(TrainingFailedError):
    """A run that was stopped on request: it was cancelled, or its process received a signal."""


def may_be_retried(task: Task[Any, Any], run: TaskRun, state: State) -> bool:
    """For Prefect's `retry_condition_fn`: a run that was stopped on request is not started again."""
    return not isinstance(state.result(raise_on_failure=False), TrainingStoppedError)


def run_training(
    job: TrainJob, resources: Resources, watchers: Sequence[Watcher] = (), *, spread: bool = False
) -> TrainResult:
    """Train, or take the result of a finished run of the same recipe. Arguments and errors are those of `run_job`."""
    return TrainResult.read(run_job(job, resources, watchers, spread=spread) / "result.json")


def run_evaluation(
    job: EvaluationJob, resources: Resources, watchers: Sequence[Watcher] = (), *, spread: bool = False
) -> EvaluationResult:
    """Evaluate a model, or take the result of a finished evaluation. Arguments and errors are those of `run_job`."""
    return EvaluationResult.read(run_job(job, resources, watchers, spread=spread) / "result.json")


def run_job(job: Job, resources: Resources, watchers: Sequence[Watcher] = (), *, spread: bool = False) -> Path:
    """Run a job to its end in a process of its own, unless a run of the same recipe is finished; return its folder.

    Args:
        spread: use as many processes on as many nodes as `resources` has; else one, on one device.

    Raises TrainingFailedError with the end of the process's log if it does not finish, TrainingStoppedError if it was
    stopped on request, and ConfigError for packed files that differ from the manifest.
    """
    try:
        if is_finished(job):
            logger.info("%s: finished before, in %s; taking its result", job.name, run_folder(job))
            follow(run_folder(job) / "events.jsonl", 0, watchers)
            return run_folder(job)
        check_packed(job.files())
        folder = open_run_folder(job)
        with leased_device(resources, resources.processes if spread else 1) as device:
            record_start(folder, job.model_copy(update={"output": str(folder), "threads": device.threads}))
            status = run_program(folder, device, torchrun(resources, folder.name) if spread else [], watchers)
    finally:
        for watcher in watchers:
            watcher.close()
    if status != 0:
        _fail(folder, status)
    return folder


def _fail(folder: Path, status: int) -> None:
    log = folder / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    error = TrainingStoppedError if status == STOPPED else TrainingFailedError
    raise error(
        f"{folder.name} ended with status {status}; its checkpoints stay in {folder}, and running the stage again goes "
        f"on from there. The end of {log}:\n" + "\n".join(lines)
    )
