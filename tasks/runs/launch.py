"""Start a training as its own process, follow what it says, and bring back its result."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import velocitune_core
from tasks.runs.devices import Device, leased_device
from tasks.runs.verify_data import check_packed
from tasks.views.watcher import Watcher
from tasks.workspace import paths
from velocitune_core.config import Resources
from velocitune_core.contracts import TrainResult
from velocitune_core.files import write_text
from velocitune_core.strategies import strategy_file
from velocitune_core.train.events import read_events_from
from velocitune_core.train.job import TrainJob
from velocitune_core.train.stop import STOPPED

if TYPE_CHECKING:
    from prefect import State, Task
    from prefect.client.schemas.objects import TaskRun

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_SAVE = 60.0  # after asking a training to stop
LOG_LINES_SHOWN = 15
TRAINING = (  # the wings of the core that a training runs, but for the strategies, of which each runs its own
    "checkpoint", "config", "contracts", "data", "evaluation", "files", "mixture", "model", "parallel", "train",
    "velocity",
)  # fmt: skip


class TrainingFailedError(RuntimeError):
    """A training process that did not finish; what it saved stays, and the next run goes on from there."""


class TrainingStoppedError(TrainingFailedError):
    """A training that somebody stopped: the run was cancelled, or the process was sent a signal."""


def may_be_retried(task: Task[Any, Any], run: TaskRun, state: State) -> bool:
    """For Prefect's `retry_condition_fn`: whatever was stopped on request is not started again."""
    return not isinstance(state.result(raise_on_failure=False), TrainingStoppedError)


def run_folder(job: TrainJob) -> Path:
    """Where this very job runs: another job, data, model or code has another folder."""
    key = sha256(f"{job.fingerprint()}{_code_digest(job.strategy.name)}".encode()).hexdigest()[:12]
    return paths.RUNS / f"{job.name}-{key}"


def run_training(
    job: TrainJob, resources: Resources, watchers: Sequence[Watcher] = (), *, spread: bool = False
) -> TrainResult:
    """Run a job to its end in a process of its own, or take the result of an earlier run of the same job.

    If `spread`, it is as many processes on as many nodes as `resources` has; else it is one, on one device.
    Raises TrainingFailedError with the end of the process's log if it does not finish, TrainingStoppedError if it was
    asked to stop, and ConfigError for packed files that are not what `prepare` made.
    """
    folder = run_folder(job)
    result = folder / "result.json"
    try:
        if result.exists():
            logger.info("%s: finished before, in %s; taking its result", job.name, folder)
            _follow(folder / "events.jsonl", 0, watchers)
        else:
            check_packed(
                (Path(path), digest)
                for files in job.domains.values()
                for path, digest in ((files.train, files.train_sha256), (files.held_out, files.held_out_sha256))
            )
            with leased_device(resources, resources.processes if spread else 1) as device:
                settled = job.model_copy(update={"output": str(folder), "threads": device.threads})
                write_text(folder / "job.json", settled.model_dump_json(indent=2))
                launcher = torchrun(resources, folder.name) if spread else []
                _launch(folder, device, launcher, watchers)
    finally:
        for watcher in watchers:
            watcher.close()
    return TrainResult.read(result)


def torchrun(resources: Resources, run: str) -> list[str]:
    """Arguments that start a program as several processes; none for one process alone."""
    if resources.nodes * resources.processes == 1:
        return []
    meeting = ["--standalone"]
    if resources.nodes > 1:
        meeting = [f"--nnodes={resources.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={run}"]
        meeting += [f"--rdzv-endpoint={resources.rendezvous}"]
    return ["-m", "torch.distributed.run", *meeting, f"--nproc-per-node={resources.processes}"]


def _launch(folder: Path, device: Device, launcher: list[str], watchers: Sequence[Watcher]) -> None:
    program = ["-m", "velocitune_core.train", str(folder / "job.json")]
    if any(argument.startswith("--nnodes") for argument in launcher):
        join = " ".join(["python", *launcher, *program])
        logger.info("waiting for the other nodes; run on each, in this folder on a shared file system: %s", join)
    command = [sys.executable, *launcher, *program, "--parent", str(os.getpid())]
    environment = {**os.environ, **device.environment, "HF_HUB_OFFLINE": "1"}
    log = folder / "log.txt"
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        offset = 0
        while True:
            status = process.poll()  # before reading, so that the last events are read after the end
            offset = _follow(folder / "events.jsonl", offset, watchers)
            if status is not None:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        _stop(process)
    if status != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        error = TrainingStoppedError if status == STOPPED else TrainingFailedError
        raise error(
            f"{folder.name} ended with status {status}; what it saved stays in {folder}, and running the stage again "
            f"goes on from there. The end of {log}:\n" + "\n".join(lines)
        )


def _follow(events: Path, offset: int, watchers: Sequence[Watcher]) -> int:
    """Tell the watchers what is new in the event file; returns the offset behind it."""
    for event, behind in read_events_from(events, offset):
        for watcher in watchers:
            watcher(event)
        offset = behind
    for watcher in watchers:
        watcher.flush()
    return offset


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Leave no orphan: ask a process that still runs to save and stop, then insist."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(SECONDS_TO_SAVE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _code_digest(strategy: str) -> str:
    """Hash of the code that trains, so that results of other code are never taken for its own.

    Of the strategies it covers the one that is used, wherever that is written: another one may change, or be added,
    and nothing has to be trained again.
    """
    root = Path(str(velocitune_core.__file__)).parent
    files = (file for wing in TRAINING for file in [root / f"{wing}.py", *(root / wing).rglob("*.py")])
    digest = sha256()
    for file in [*sorted(filter(Path.exists, files)), root / "strategies/base.py", strategy_file(strategy)]:
        digest.update(file.read_bytes())
    return digest.hexdigest()
