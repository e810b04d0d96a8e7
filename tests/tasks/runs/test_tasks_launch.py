"""Runs in processes of their own: their results are returned, and a kill costs no more than the steps since a save."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from pathlib import Path
from threading import Event, Timer
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from forked import ForkedRun
from prefect.exceptions import TerminationSignal
from prefect.states import Failed
from tiny import job as tiny_job

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
LONG = {"execution__log_every_steps": 5, "evaluation__every_steps": 500, "execution__checkpoint_every_steps": 20}


class Listener:
    """Records events, and may act on each."""

    def __init__(self, act: Callable[[RunEvent], None] = lambda event: None) -> None:
        self.events: list[RunEvent] = []
        self.closed = 0
        self._act = act

    def __call__(self, event: RunEvent) -> None:
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


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def preloaded(pid: int) -> list[int]:
    """Processes from which this one has its runs forked."""
    return [child for child in children(pid) if "fork_server.py" in command_of(child)]


def running_ranks(pid: int) -> list[int]:
    """Not the server that forks the runs of other tests, which names the program too."""
    own = [*children(pid), *(run for server in preloaded(pid) for run in children(server))]
    return [child for child in own if "-m\0velocitune_core.train\0" in command_of(child)]


def forked_beside(pid: int, folder: Path) -> list[int]:
    """Processes in a folder that come from the process which another one was forked from."""
    parent = psutil.Process(pid).parent()
    assert parent is not None
    return [each for each in children(parent.pid) if each != pid and Path(f"/proc/{each}/cwd").resolve() == folder]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object], seconds: float, every_seconds: float = 0.1) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing after {seconds} s"
        time.sleep(every_seconds)


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


@pytest.mark.slow
def test_two_ranks_under_torchrun_are_stopped_without_a_loss_or_a_retry(
    make_job: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """One of them takes longer to stop than `torchrun` would wait by itself: set to a second, as a test cannot wait."""
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "1")
    job = make_job(total_steps=60, **LONG | {"execution__log_every_steps": 1})
    asked: list[int] = []

    def stop_slowly(event: RunEvent) -> None:
        if isinstance(event, Stepped) and not asked:
            (agent,) = running_ranks(os.getpid())
            asked.extend(children(agent))
            os.kill(asked[-1], signal.SIGSTOP)
            Timer(3, os.kill, [asked[-1], signal.SIGCONT]).start()
            os.kill(agent, signal.SIGTERM)

    first, second = Listener(stop_slowly), Listener()
    resources = Resources(threads=1, processes=2)
    with pytest.raises(TrainingStoppedError, match=r"stopped \(exit status 1\): tiny stopped after step"):
        run_training(job, resources, [first], spread=True)
    assert len(asked) == 2 and not any(map(alive, asked))
    saved, corrupt = load_latest(run_folder(job) / "checkpoints")
    assert saved is not None and corrupt == []
    request.getfixturevalue("forked_program")
    result = run_training(job, resources, [second], spread=True)
    assert [(event.world_size, event.resumed_from) for event in second.events if isinstance(event, Started)] == [
        (2, None),
        (2, saved.step),
    ]
    assert [event.step for event in second.events if isinstance(event, Stepped)] == list(range(1, 61))
    assert (result.steps, result.resumed) == (60, 1)


@pytest.mark.slow
def test_two_ranks_whose_torchrun_is_killed_save_and_stop(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(total_steps=2000, **LONG | {"execution__log_every_steps": 1})
    ranks: list[int] = []

    def kill_torchrun(event: RunEvent) -> None:
        if isinstance(event, Stepped) and not ranks:
            (agent,) = running_ranks(os.getpid())
            ranks.extend(children(agent))
            os.kill(agent, signal.SIGKILL)

    with pytest.raises((TrainingFailedError, TrainingStoppedError)):
        run_training(job, Resources(threads=1, processes=2), [Listener(kill_torchrun)], spread=True)
    wait_for(lambda: not any(map(alive, ranks)), 60)
    saved, corrupt = load_latest(run_folder(job) / "checkpoints")
    last = max(event.step for event in read_events(run_folder(job) / "events.jsonl"))
    assert len(ranks) == 2 and saved is not None and corrupt == []
    assert saved.step == last < 2000


@pytest.mark.usefixtures("forked_program")
def test_two_ranks_are_refused(make_job: Callable[..., TrainJob]) -> None:
    with pytest.raises(TrainingRefusedError, match="6 is not a multiple of 2 processes times"):
        run_training(make_job(execution__micro_batch_sequences=2), Resources(threads=1, processes=2), spread=True)


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
