"""Runs in processes of their own: their results are returned, and a kill costs no more than the steps since a save."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from forked import ForkedRun
from launched import LONG, Listener, alive, forked_beside, preloaded, running_ranks
from prefect.exceptions import TerminationSignal
from prefect.states import Failed
from trainings import wait_for

from tasks.runs import torchrun
from tasks.runs.executors import stopped_by_signal
from tasks.runs.launch import (
    TrainingFailedError,
    TrainingRefusedError,
    TrainingStoppedError,
    end_of,
    failure,
    may_be_retried,
    run_folder,
    run_training,
)
from tasks.workspace import paths
from velocitune_core.checkpoint.store import load_latest
from velocitune_core.config import ConfigError, Resources
from velocitune_core.preload.start import _SERVERS
from velocitune_core.train.events import Checkpointed, Finished, Measured, Started, Stepped, read_events
from velocitune_core.train.events import Event as RunEvent
from velocitune_core.train.job import TrainJob
from velocitune_core.train.outcome import write_outcome
from velocitune_core.train.stop import STOPPED
from velocitune_core.train.timeline import timeline

ONE_THREAD = Resources(threads=1)
LAUNCH = """
from pathlib import Path
from tasks.runs.launch import run_training
from velocitune_core.config import Resources
from velocitune_core.train.job import TrainJob
if __name__ == "__main__":
    run_training(TrainJob.model_validate_json(Path("job.json").read_text(), strict=False), Resources(threads=1))
"""


@pytest.mark.usefixtures("forked_program")
@pytest.mark.slow
def test_a_finished_run_is_not_started_again(make_job: Callable[..., TrainJob]) -> None:
    job, first, second = make_job(total_steps=30), Listener(), Listener()
    result = run_training(job, ONE_THREAD, [first])
    assert (result.name, result.steps, result.resumed) == ("tiny", 30, 0)
    assert set(result.final) == {"code", "general"} and (run_folder(job) / "model").is_dir()
    assert not list((run_folder(job) / "checkpoints").iterdir())  # its result is there
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
def test_a_forked_run_is_bit_for_bit_one_that_is_started_by_itself(
    make_job: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that it is forked from is left to the next test."""
    job, seen = make_job(), []
    _SERVERS.close()
    for switch in ("0", "1"):
        monkeypatch.setenv("VELOCITUNE_PRELOAD", switch)
        result = run_training(job, ONE_THREAD)
        events = read_events(run_folder(job) / "events.jsonl")
        losses = [event.loss for event in events if isinstance(event, Stepped)]
        model = (run_folder(job) / "model/model.safetensors").read_bytes()
        seen.append((losses, result.final, result.domain_weights, model, bool(preloaded(os.getpid()))))
        (run_folder(job)).rename(switch)
    assert seen[0][:-1] == seen[1][:-1]
    assert [forked for *_, forked in seen] == [False, True]


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_checkpoint_under_another_execution(
    make_job: Callable[..., TrainJob],
) -> None:
    job = make_job(total_steps=300, **LONG)
    killed: list[int] = []

    def kill_after_a_save(event: RunEvent) -> None:
        if isinstance(event, Checkpointed) and not killed:
            killed.extend(running_ranks(os.getpid()))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(TrainingFailedError, match=r"failed \(killed by SIGKILL: often out of memory\)") as failed:
        run_training(job, ONE_THREAD, [Listener(kill_after_a_save)])
    assert "running the stage again goes on from there" in str(failed.value)
    assert len(killed) == 1 and not (run_folder(job) / "result.json").exists()

    def kill_the_preloaded_process(event: RunEvent) -> None:
        if isinstance(event, Started) and event.resumed_from is not None:
            servers.extend(preloaded(os.getpid()))
            for server in servers:
                os.kill(server, signal.SIGKILL)

    servers: list[int] = []
    listener = Listener(kill_the_preloaded_process)
    execution = job.execution.model_copy(update={"checkpoints_kept": 5, "evaluation_micro_batch_sequences": 3})
    otherwise = job.model_copy(update={"execution": execution})  # another way of computing the same run
    result = run_training(otherwise, ONE_THREAD, [listener])
    assert run_folder(otherwise) == run_folder(job)
    resumed_from = [event.resumed_from for event in listener.events if isinstance(event, Started)]
    assert resumed_from[0] is None and len(resumed_from) == 2
    assert resumed_from[1] is not None and resumed_from[1] >= 20
    assert (result.steps, result.resumed) == (300, 1) and servers
    logged = [event.step for event in timeline(listener.events) if isinstance(event, Stepped)]
    assert logged == list(range(5, 301, 5))  # each once


def test_a_run_that_was_killed_before_it_saved_anything_promises_nothing(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(total_steps=3000, **{**LONG, "execution__checkpoint_every_steps": 3000})

    def kill(event: RunEvent) -> None:
        if isinstance(event, Started):
            os.kill(running_ranks(os.getpid())[0], signal.SIGKILL)

    with pytest.raises(TrainingFailedError) as failed:
        run_training(job, ONE_THREAD, [Listener(kill)])
    first, second = str(failed.value).splitlines()
    assert first.endswith(" failed (killed by SIGKILL: often out of memory)")
    assert second == (
        "It has saved nothing yet; running the stage again starts it from its beginning. "
        f"{run_folder(job) / 'log.txt'} is empty."
    )


@pytest.mark.parametrize(("measured", "saved"), [(True, "The losses that it has measured stay in"), (False, "nothing")])
def test_an_evaluation_has_saved_what_it_has_measured(workspace: Path, measured: bool, saved: str) -> None:
    folder = workspace / "initial-1"
    folder.mkdir()
    (folder / "log.txt").touch()
    event = Measured(step=2, first=0, nats=[1.0, 2.0], tokens=8, seconds=0.1)
    (folder / "events.jsonl").write_text(event.model_dump_json() + "\n" if measured else "")
    assert saved in str(failure(folder, "now", "failed", -9))


@pytest.mark.slow
@pytest.mark.usefixtures("forked_program")
def test_a_job_that_cannot_work_is_refused_with_its_log(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(domains__code__train="nowhere/train.npy")
    with pytest.raises(TrainingRefusedError, match=r"was refused: .*nowhere/train\.npy") as refused:
        run_training(job, ONE_THREAD)
    message = str(refused.value)
    assert "The end of" in message and "log.txt" in message and "nowhere/train.npy" in message.split("The end of")[1]


def test_a_run_folder_that_cannot_be_locked_is_refused(make_job: Callable[..., TrainJob]) -> None:
    job = make_job()
    (run_folder(job) / "run.lock").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"run\.lock: cannot be locked: Is a directory"):  # which is not retried
        run_training(job, ONE_THREAD)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TrainingFailedError("failed"), True),
        (TrainingStoppedError("stopped"), False),
        (TrainingRefusedError("refused"), False),
        (ConfigError("train.npy: not the file that `prepare` wrote"), False),
    ],
)
def test_a_run_that_was_stopped_or_refused_is_not_retried(error: Exception, again: bool) -> None:
    task: Any = None  # both are not looked at
    assert may_be_retried(task, task, Failed(data=error)) is again


def test_the_end_of_a_start_is_what_it_wrote_and_else_its_exit_status(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(start_id="now").model_copy(update={"output": "run"})
    Path("run").mkdir()
    assert end_of(Path("run"), "now", 75) == "stopped"
    write_outcome(job, "refused", "no such packed files")
    assert end_of(Path("run"), "now", 1) == "refused"  # the status that torchrun has for everything
    write_outcome(job, "failed", "Connection closed by peer")  # of the other rank
    assert end_of(Path("run"), "now", 1) == "refused"
    assert end_of(Path("run"), "another start", 1) == "failed"
    write_outcome(job.model_copy(update={"start_id": "another start"}), "stopped")
    assert end_of(Path("run"), "another start", 1) == "stopped"


@pytest.mark.slow
@pytest.mark.usefixtures("forked_program")  # of the second start; the first one's launcher is a process of its own
def test_a_start_after_the_launcher_was_killed_waits_for_the_orphan_and_goes_on_from_its_checkpoint(
    make_job: Callable[..., TrainJob], workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The orphan is inside a step at the second start; it saves after that step and ends."""
    job = make_job(total_steps=200, **LONG | {"execution__checkpoint_every_steps": 150})
    (workspace / "job.json").write_text(job.model_dump_json())
    (workspace / "launch_here.py").write_text(LAUNCH)
    events = run_folder(job) / "events.jsonl"
    launcher = ForkedRun(["--watched", "launch_here"], program="forked_flow")
    try:
        wait_for(lambda: events.exists() and '"event":"step"' in events.read_text(), 120, every_seconds=0.005)
        (orphan,) = forked_beside(launcher.pid, workspace)
        os.kill(orphan, signal.SIGSTOP)
    finally:
        launcher.kill()
    with ThreadPoolExecutor(1) as thread:
        try:
            again = thread.submit(run_training, job, ONE_THREAD)
            wait_for(lambda: f"(process {orphan} on {socket.gethostname()}" in caplog.text, 120)
            assert not again.done()
        finally:
            os.kill(orphan, signal.SIGCONT)
        result = again.result(120)
    assert not alive(orphan)
    first, second = (event.resumed_from for event in read_events(events) if isinstance(event, Started))
    assert first is None and second is not None and 0 < second < 150  # saved by the orphan as it stopped
    assert (result.steps, result.resumed) == (200, 1)


@pytest.mark.slow
def test_a_signal_to_a_flow_that_waits_for_runs_stops_them_at_once_with_a_checkpoint(
    make_job: Callable[..., TrainJob],
) -> None:
    """Prefect's task runner waits for its threads, like this pool; the second run has not begun then."""
    jobs, sent = [make_job(training__seed=seed, total_steps=400, **LONG) for seed in (1, 2)], []

    def send(event: RunEvent) -> None:
        if isinstance(event, Stepped) and not sent:
            sent.append(event.step)
            os.kill(os.getpid(), signal.SIGTERM)

    def raised(number: int, _: object) -> None:
        raise TerminationSignal(number)

    former = signal.signal(signal.SIGTERM, raised)  # as Prefect does
    try:
        with pytest.raises(TerminationSignal), ThreadPoolExecutor(1) as pool, stopped_by_signal():
            futures = [pool.submit(copy_context().run, run_training, job, ONE_THREAD, [Listener(send)]) for job in jobs]
            wait(futures)
    finally:
        signal.signal(signal.SIGTERM, former)
    for future in futures:
        assert isinstance(future.exception(), TrainingStoppedError)
    saved, corrupt = load_latest(run_folder(jobs[0]) / "checkpoints")
    assert saved is not None and corrupt == [] and not running_ranks(os.getpid())
    assert not (run_folder(jobs[1]) / "events.jsonl").exists()


def test_a_flow_that_was_stopped_stops_its_own_runs_and_none_of_a_later_flow(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, ended = Event(), Event()
    device: Any = SimpleNamespace(gpus=[], environment={})
    program: Any = SimpleNamespace(poll=lambda: 0 if ended.is_set() else None, wait=lambda seconds: 0)
    program.terminate = ended.set
    monkeypatch.setattr(torchrun, "start_process", lambda *_: started.set() or program)

    def run() -> int:
        return torchrun.run_program(workspace, device, [], [], 1)

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(TerminationSignal), stopped_by_signal():
            futures = [pool.submit(copy_context().run, run) for _ in range(2)]  # as Prefect does
            assert started.wait(10)
            raise TerminationSignal(signal.SIGTERM)
        assert [each.result(10) for each in futures] == [0, STOPPED]  # the second one had not begun
    assert run() == 0
    with stopped_by_signal():
        assert run() == 0


def test_no_run_starts_on_packed_files_that_were_altered(workspace: Path, make_job: Callable[..., TrainJob]) -> None:
    job = make_job()
    files = job.domains["code"]
    altered = workspace / "train.npy"
    altered.write_bytes(Path(files.train).read_bytes()[:-1] + b"\x01")
    domains = {**job.domains, "code": files.model_copy(update={"train": str(altered)})}
    with pytest.raises(ConfigError, match=r"train\.npy: not the file that `prepare` wrote"):
        run_training(job.model_copy(update={"domains": domains}), ONE_THREAD)
    assert not list(paths.RUNS.glob("*/log.txt"))
