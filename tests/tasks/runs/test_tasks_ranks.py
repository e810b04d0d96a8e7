"""Several processes of a run under torchrun: stopped without a loss, refused together, joined by other nodes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import pytest
from launched import LONG, Listener, alive, children, running_ranks
from trainings import wait_for

from tasks.runs.launch import (
    TrainingFailedError,
    TrainingRefusedError,
    TrainingStoppedError,
    run_folder,
    run_training,
)
from velocitune_core.checkpoint.store import load_latest
from velocitune_core.config import Resources
from velocitune_core.train.events import Event, Started, Stepped, read_events
from velocitune_core.train.job import TrainJob

SLOW_TO_START = """
import os, pathlib, time
if "RANK" in os.environ:
    pathlib.Path("rank-" + os.environ["RANK"]).touch()
    time.sleep(60)
"""


@pytest.mark.slow
def test_two_ranks_under_torchrun_are_stopped_without_a_loss_or_a_retry(
    make_job: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """One of them takes longer to stop than `torchrun` would wait by itself: set to a second, as a test cannot wait."""
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "1")
    job = make_job(total_steps=60, **LONG | {"execution__log_every_steps": 1})
    asked: list[int] = []

    def stop_slowly(event: Event) -> None:
        if isinstance(event, Stepped) and not asked:
            (agent,) = running_ranks(os.getpid())
            asked.extend(children(agent))
            os.kill(asked[-1], signal.SIGSTOP)
            Timer(3, os.kill, [asked[-1], signal.SIGCONT]).start()
            os.kill(agent, signal.SIGTERM)

    first, second = Listener(stop_slowly), Listener()
    resources = Resources(threads=1, processes=2)
    with pytest.raises(TrainingStoppedError, match=r"stopped: tiny stopped after step"):
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

    def kill_torchrun(event: Event) -> None:
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


def test_two_ranks_are_stopped_in_the_first_moments_of_their_python(
    make_job: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before they can handle a signal, which `torchrun` reports as it does a failure."""
    (tmp_path / "site/sitecustomize.py").parent.mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(SLOW_TO_START)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))
    job = make_job()

    def stop_early() -> None:
        wait_for(lambda: all(Path(f"rank-{rank}").exists() for rank in (0, 1)), 60)
        (agent,) = running_ranks(os.getpid())
        os.kill(agent, signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(stop_early)
        with pytest.raises(TrainingStoppedError, match=r"stopped\nIt has saved nothing yet"):
            run_training(job, Resources(threads=1, processes=2), spread=True)
        stopped.result()
    assert not list(run_folder(job).glob("torchrun*"))


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
