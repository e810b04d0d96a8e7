"""The training program as a process: its command line, its events while it runs, and its end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

from tasks.runs.devices import Device
from tasks.views.watcher import Watcher
from tasks.workspace import paths
from velocitune_core.config import Resources
from velocitune_core.parallel.environment import without_process_group
from velocitune_core.preload.start import Process, start_process
from velocitune_core.train.events import read_events_from
from velocitune_core.train.outcome import LOG
from velocitune_core.train.stop import STOPPED

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_POLLS = 0.5
SECONDS_FOR_TORCHRUN = 15.0  # to end after its workers
TORCHRUN_ERROR = "torchrun-error.json"  # in the run folder while torchrun runs there
# Set: programs that are run in this context save and stop, and none is started any more. Prefect's threads have the
# context of the flow that submitted to them, so that one flow's end is not the next one's.
STOPPING: ContextVar[threading.Event] = ContextVar("stopping", default=threading.Event())  # noqa: B039


def torchrun(resources: Resources, run: str, shutdown_seconds: int) -> list[str]:
    """Return the arguments that start a program as several processes; none for a single process.

    Args:
        run: a name that all nodes of the same run are given.
        shutdown_seconds: from SIGTERM to SIGKILL.
    """
    if resources.nodes * resources.processes == 1:
        return []
    meeting = ["--standalone"]
    if resources.nodes > 1:
        meeting = [f"--nnodes={resources.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={run}"]
        meeting += [f"--rdzv-endpoint={resources.rendezvous}"]
    patience = f"--shutdown-timeout={shutdown_seconds}"
    return ["-m", "torch.distributed.run", *meeting, patience, f"--nproc-per-node={resources.processes}"]


def run_program(
    folder: Path, device: Device, launcher: list[str], watchers: Sequence[Watcher], shutdown_seconds: int
) -> int:
    """Run the job in `folder` to its end, pass its events to the watchers, and return the exit status.

    A single process is forked from one that has imported the libraries, where that is possible.

    If this is interrupted, or `STOPPING` set, the program has `shutdown_seconds` to save before it is killed.
    """
    program = ["velocitune_core.train", str(folder / "job.json")]
    if any(argument.startswith("--nnodes") for argument in launcher):
        join = " ".join(["python", *launcher, "-m", *program])
        logger.info("waiting for the other nodes; run on each, in this folder on a shared file system: %s", join)
    program += ["--parent", str(os.getpid())]
    stopping = STOPPING.get()
    patience = shutdown_seconds + (SECONDS_FOR_TORCHRUN if launcher else 0.0)
    environment, error = environment_of(device), folder / TORCHRUN_ERROR
    error.unlink(missing_ok=True)  # of a start whose launcher was killed
    if launcher:
        environment["TORCHELASTIC_ERROR_FILE"] = str(error)
    with (folder / LOG).open("ab") as log:
        if stopping.is_set():
            return STOPPED
        process = start_process(program, environment, log, launcher)
    try:
        offset = 0
        while True:
            status = process.poll()  # before reading, so that the last events are read after the end
            offset = follow(folder / "events.jsonl", offset, watchers)
            if status is not None:
                return STOPPED if status and _was_signalled(error) else status
            if stopping.wait(SECONDS_BETWEEN_POLLS):
                _stop(process, patience)
    finally:
        _stop(process, patience)
        error.unlink(missing_ok=True)


def _was_signalled(error: Path) -> bool:
    """Return whether the error that `torchrun` wrote is that a signal ended it.

    Its status is 1 then, as after a failure. Ranks that handle the signal write that they stopped; those that it
    reached in the first moments of their Python, before they could handle it, write nothing.
    """
    try:
        message = json.loads(error.read_text(encoding="utf-8"))["message"]["message"]
    except (OSError, ValueError, TypeError, KeyError):  # none, or cut off on a full disk
        return False
    return str(message).startswith("SignalException:")


def environment_of(device: Device) -> dict[str, str]:
    """Return the environment of the training program on a device.

    Variables of a process group that this process inherited are left out, or a single process would wait for ranks that
    nobody starts. `torchrun` sets its own for the processes that `resources` describes. Code that torch.compile makes
    is kept in the workspace, unless the user has named a folder for it, so that runs alike compile once.
    """
    compiling = {"TORCHINDUCTOR_CACHE_DIR": str(paths.COMPILED.absolute())}
    if not device.gpus:  # else torch starts a pool of compiling processes, each of which imports torch
        compiling["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    return {**compiling, **without_process_group(os.environ), **device.environment, "HF_HUB_OFFLINE": "1"}


def follow(events: Path, offset: int, watchers: Sequence[Watcher]) -> int:
    """Pass new events of a file to the watchers; return the byte offset behind the last."""
    for event, behind in read_events_from(events, offset):
        for watcher in watchers:
            watcher(event)
        offset = behind
    for watcher in watchers:
        watcher.flush()
    return offset


def _stop(process: Process, seconds: float) -> None:
    """Leave no orphan: terminate a process that still runs, which saves, and kill it if it does not end."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
