"""How runs end in MLflow: FINISHED, FAILED, or KILLED by whoever started them. Commands are processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from event_samples import started, stepped
from mlflow import MlflowClient
from tiny import job as tiny_job
from trainings import wait_for

from tasks.views.mlflow_runs import PARENT_TAG, Tracker
from tasks.views.mlflow_store import close_left_runs
from tasks.workspace.lock import exclusive
from tasks.workspace.signals import end_on_signals
from velocitune_core.config import parse_params
from velocitune_core.train.events import Finished
from velocitune_core.train.job import TrainJob
from velocitune_core.train.outcome import End, write_outcome

FOLDER, EXPERIMENT = Path("runs/training-1"), "ends"
FORK = multiprocessing.get_context("fork")  # of a process that has imported MLflow


@pytest.fixture
def store(workspace: Path, mlflow_store: Path, settings: dict[str, Any]) -> MlflowClient:
    """A store of its own, as its address belongs to the process that has opened it."""
    client = MlflowClient(f"sqlite:///{mlflow_store / 'mlflow.db'}")
    if client.get_experiment_by_name(EXPERIMENT) is None:  # the tables are made once
        client.create_experiment(EXPERIMENT, (mlflow_store / "mlartifacts").as_uri())
    shutil.copy(mlflow_store / "mlflow.db", workspace)
    settings["tracking"] = {"experiment": EXPERIMENT}
    FOLDER.mkdir(parents=True)
    return MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")


def command(settings: dict[str, Any], work: Callable[[], object], steps_after: float | None = None) -> None:
    """What a flow does: hold the workspace, and follow a run, which says `steps_after` seconds how far it is."""
    end_on_signals()
    with exclusive():
        child = Tracker(parse_params(settings)).child("training", FOLDER)
        child(started(time=time.time()))
        if steps_after is not None:
            child(stepped(1, time=time.time() + steps_after))
        child.flush()
        Path("follows").touch()
        work()
    os._exit(0)  # without the exit functions of the process that it was forked from


def fail() -> None:
    raise RuntimeError("no such luck")


def number_of(client: MlflowClient) -> str:
    """Return the ID of the experiment, in a store that may have others."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return experiment.experiment_id


def statuses(client: MlflowClient) -> dict[str, str]:
    runs = client.search_runs([number_of(client)])
    return {"child" if PARENT_TAG in run.data.tags else "parent": run.info.status for run in runs}


@pytest.mark.parametrize(
    ("work", "number", "status", "shown"),
    [
        (signal.pause, signal.SIGINT, 130, "KILLED"),
        (signal.pause, signal.SIGTERM, 143, "KILLED"),
        (fail, None, 1, "FAILED"),
        (int, None, 0, "FINISHED"),
    ],
)
def test_the_end_of_a_command_is_the_end_of_its_runs(
    store: MlflowClient,
    settings: dict[str, Any],
    work: Callable[[], object],
    number: signal.Signals | None,
    status: int,
    shown: str,
) -> None:
    process = FORK.Process(target=command, args=(settings, work))
    process.start()
    wait_for(Path("follows").exists, 60)
    if number is not None:
        os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == status
    assert statuses(store) == {"child": shown, "parent": shown}


def test_what_a_kill_has_left_open_is_closed_by_the_next_command(store: MlflowClient, settings: dict[str, Any]) -> None:
    process = FORK.Process(target=command, args=(settings, signal.pause))
    process.start()
    wait_for(Path("follows").exists, 60)
    process.kill()
    process.join(60)
    assert statuses(store) == {"child": "RUNNING", "parent": "RUNNING"}
    follows = Path("follows").stat().st_mtime
    with exclusive():
        assert Tracker(parse_params(settings)).active
        assert statuses(store) == {"child": "KILLED", "parent": "RUNNING"}
    assert statuses(store) == {"child": "KILLED", "parent": "FINISHED"}
    (child,) = [run for run in store.search_runs([number_of(store)]) if PARENT_TAG in run.data.tags]
    assert child.info.end_time < follows * 1000 + 1  # when it was last seen


def test_a_killed_parent_ends_when_its_child_was_last_seen(store: MlflowClient, settings: dict[str, Any]) -> None:
    process = FORK.Process(target=command, args=(settings, signal.pause, 7.0))
    process.start()
    wait_for(Path("follows").exists, 60)
    process.kill()
    process.join(60)
    close_left_runs(store, number_of(store))
    parent, child = sorted(store.search_runs([number_of(store)]), key=lambda run: PARENT_TAG in run.data.tags)
    assert parent.info.status == child.info.status == "KILLED"
    assert parent.info.end_time == child.info.end_time > parent.info.start_time + 6_000


@pytest.mark.parametrize(
    ("ended", "interrupted", "shown"),
    [("stopped", False, "KILLED"), ("failed", False, "FAILED"), (None, True, "KILLED"), (None, False, "FAILED")],
)
def test_a_run_ends_as_its_program_says(
    store: MlflowClient,
    settings: dict[str, Any],
    tiny_inputs: Path,
    ended: End | None,
    interrupted: bool,
    shown: str,
) -> None:
    child = Tracker(parse_params(settings)).child("training", FOLDER)
    child(started())
    if ended is not None:
        write_outcome(TrainJob.model_validate(tiny_job(tiny_inputs, FOLDER), strict=False), ended)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        try:
            raise KeyboardInterrupt if interrupted else RuntimeError  # as the launcher does
        finally:
            child.close()
    assert statuses(store)["child"] == shown


def test_a_run_whose_end_mlflow_did_not_take_is_closed_with_the_command(
    store: MlflowClient, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise ConnectionError

    with exclusive():
        child = Tracker(parse_params(settings)).child("training", FOLDER)
        child(started())
        child(Finished(step=1, seconds=1.0))
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "set_terminated", lost)
            child.close()
        assert statuses(store)["child"] == "RUNNING"
    assert statuses(store) == {"child": "FINISHED", "parent": "FINISHED"}


def test_an_end_that_mlflow_does_not_take_is_warned_of_without_credentials(
    store: MlflowClient, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_: object) -> None:
        raise ConnectionError("http://ann:pa55@example.org cannot be reached")

    with exclusive():
        child = Tracker(parse_params(settings)).child("training", FOLDER)
        child(started())
        monkeypatch.setattr(MlflowClient, "set_terminated", lost)
        child.close()
    said = [each for each in caplog.messages if "did not take the end of run" in each]
    assert len(said) == 3  # the run's as it ended; with the command, its own and that of the pipeline
    assert all("http://***@example.org" in each for each in said)
