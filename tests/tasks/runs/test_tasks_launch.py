"""Runs in processes of their own: their results are returned, and a kill costs no more than the steps since a save."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny import job as tiny_job

from tasks.runs.launch import TrainingFailedError, run_folder, run_training
from tasks.workspace import paths
from velocitune_core.checkpoint.store import load_latest
from velocitune_core.config import ConfigError, Resources
from velocitune_core.train.events import Checkpointed, Event, Finished, Started, Stepped
from velocitune_core.train.job import TrainJob

ONE_THREAD = Resources(threads=1)
LAUNCH = """
import sys
from tasks.runs.launch import run_training
from velocitune_core.config import Resources
from velocitune_core.train.job import TrainJob
run_training(TrainJob.model_validate_json(open(sys.argv[1]).read(), strict=False), Resources(threads=1))
"""
LONG = {"execution__log_every_steps": 5, "evaluation__every_steps": 500, "execution__checkpoint_every_steps": 20}


class Listener:
    """Records events, and may act on each."""

    def __init__(self, act: Callable[[Event], None] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.closed = 0
        self._act = act

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._act(event)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def make_job(workspace: Path, tiny_inputs: Path) -> Callable[..., TrainJob]:
    """Jobs on the tiny model and its two domains."""

    def make(**changes: Any) -> TrainJob:
        return TrainJob.model_validate(tiny_job(tiny_inputs, workspace / "unused", **changes), strict=False)

    return make


def children(pid: int) -> list[int]:
    """Processes that any thread of this process started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def running_ranks(pid: int) -> list[int]:
    """Not the server that forks the runs of other tests, which names the program too."""
    program = "-m\0velocitune_core.train\0"
    return [child for child in children(pid) if program in Path(f"/proc/{child}/cmdline").read_text()]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing after {seconds} s"
        time.sleep(0.1)


@pytest.mark.usefixtures("forked_program")
@pytest.mark.slow
def test_a_finished_run_is_not_started_again(make_job: Callable[..., TrainJob]) -> None:
    job, first, second = make_job(total_steps=30), Listener(), Listener()
    result = run_training(job, ONE_THREAD, [first])
    assert (result.name, result.steps, result.resumed) == ("tiny", 30, 0)
    assert set(result.final) == {"code", "general"} and (run_folder(job) / "model").is_dir()
    files = {path: path.stat().st_mtime_ns for path in run_folder(job).rglob("*")}
    assert run_training(job, ONE_THREAD, [second]) == result
    assert {path: path.stat().st_mtime_ns for path in run_folder(job).rglob("*")} == files
    assert second.events == first.events and isinstance(first.events[-1], Finished)
    assert [event.step for event in first.events if isinstance(event, Stepped)] == list(range(1, 31))
    assert (first.closed, second.closed) == (1, 1)


def test_another_recipe_runs_in_another_folder(make_job: Callable[..., TrainJob]) -> None:
    job = make_job()
    assert run_folder(job) == run_folder(job.model_copy(update={"threads": 2, "output": "elsewhere"}))
    assert run_folder(job) != run_folder(make_job(training__seed=2))


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_checkpoint_under_another_execution(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(total_steps=300, **LONG)
    killed: list[int] = []

    def kill_after_a_save(event: Event) -> None:
        if isinstance(event, Checkpointed) and not killed:
            killed.extend(running_ranks(os.getpid()))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(TrainingFailedError, match="ended with status -9") as failed:
        run_training(job, ONE_THREAD, [Listener(kill_after_a_save)])
    assert "running the stage again goes on from there" in str(failed.value)
    assert len(killed) == 1 and not (run_folder(job) / "result.json").exists()
    listener = Listener()
    execution = job.execution.model_copy(update={"checkpoints_kept": 5, "evaluation_micro_batch_sequences": 3})
    otherwise = job.model_copy(update={"execution": execution})  # another way of computing the same run
    result = run_training(otherwise, ONE_THREAD, [listener])
    assert run_folder(otherwise) == run_folder(job)
    resumed_from = [event.resumed_from for event in listener.events if isinstance(event, Started)]
    assert resumed_from[0] is None and len(resumed_from) == 2
    assert resumed_from[1] is not None and resumed_from[1] >= 20
    assert (result.steps, result.resumed) == (300, 1)
    logged = [event.step for event in listener.events if isinstance(event, Stepped)]
    assert logged == list(range(5, 301, 5))  # each once


@pytest.mark.usefixtures("forked_program")
def test_a_job_that_cannot_work_fails_with_its_log(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(domains__code__train="nowhere/train.npy")
    with pytest.raises(TrainingFailedError, match=r"ended with status [12];") as failed:
        run_training(job, ONE_THREAD)
    message = str(failed.value)
    assert "The end of" in message and "log.txt" in message and "nowhere/train.npy" in message.split("The end of")[1]


@pytest.mark.slow
def test_a_run_stops_and_saves_when_its_launcher_is_killed(make_job: Callable[..., TrainJob], workspace: Path) -> None:
    job = make_job(total_steps=1_000_000, **LONG | {"execution__checkpoint_every_steps": 500_000})
    (workspace / "job.json").write_text(job.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    events = run_folder(job) / "events.jsonl"
    with subprocess.Popen([sys.executable, "-c", LAUNCH, "job.json"], env=environment) as launcher:
        try:
            wait_for(lambda: events.exists() and '"event":"step"' in events.read_text(), 60)
            started = running_ranks(launcher.pid)
        finally:
            launcher.kill()
    assert len(started) == 1
    try:
        wait_for(lambda: not alive(started[0]), 15)
    finally:
        if alive(started[0]):
            os.kill(started[0], signal.SIGKILL)
    checkpoint, corrupt = load_latest(run_folder(job) / "checkpoints")
    assert checkpoint is not None and corrupt == [] and 0 < checkpoint.step < 500_000
    log = (run_folder(job) / "log.txt").read_text()
    assert f"tiny stopped after step {checkpoint.step} of 1000000; saved" in log


@pytest.mark.slow
def test_several_processes_are_started_by_torchrun(make_job: Callable[..., TrainJob]) -> None:
    listener = Listener()
    result = run_training(make_job(), Resources(threads=1, processes=2), [listener], spread=True)
    (started,) = [event for event in listener.events if isinstance(event, Started)]
    assert started.world_size == 2
    assert isinstance(listener.events[-1], Finished) and result.steps == started.total_steps


@pytest.mark.slow
def test_other_nodes_join_by_the_command_that_is_logged(
    make_job: Callable[..., TrainJob], caplog: pytest.LogCaptureFixture
) -> None:
    """Two nodes on one machine: they meet by address, as they would over a network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    caplog.set_level("INFO", logger="tasks.runs.launch")
    listener = Listener()
    resources = Resources(threads=1, nodes=2, rendezvous=address)
    with ThreadPoolExecutor(1) as thread:
        here = thread.submit(run_training, make_job(), resources, [listener], spread=True)
        wait_for(lambda: "waiting for the other nodes" in caplog.text, 60)
        command = caplog.messages[-1].partition(": ")[2].replace("python", sys.executable, 1)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        subprocess.run(command.split(), env=environment, check=True, timeout=120)
        result = here.result(120)
    (started,) = [event for event in listener.events if isinstance(event, Started)]
    assert started.world_size == 2 and result.steps == started.total_steps


def test_no_run_starts_on_packed_files_that_were_altered(workspace: Path, make_job: Callable[..., TrainJob]) -> None:
    job = make_job()
    files = job.domains["code"]
    altered = workspace / "train.npy"
    altered.write_bytes(Path(files.train).read_bytes()[:-1] + b"\x01")
    domains = {**job.domains, "code": files.model_copy(update={"train": str(altered)})}
    with pytest.raises(ConfigError, match=r"train\.npy: not the file that `prepare` wrote"):
        run_training(job.model_copy(update={"domains": domains}), ONE_THREAD)
    assert not list(paths.RUNS.glob("*/log.txt"))
