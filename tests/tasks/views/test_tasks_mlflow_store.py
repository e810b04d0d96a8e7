"""Where MLflow's store and its artifacts are found: after a move of the workspace, and in a temporary copy of it."""

from __future__ import annotations

import os
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils
from servers import free_port, running

from tasks.views.mlflow_links import address_of, served_at
from tasks.views.mlflow_runs import Tracker
from tasks.views.mlflow_store import open_store
from tasks.workspace import paths
from tasks.workspace.home import home, share_run
from tasks.workspace.lock import exclusive
from velocitune_core.config import Params, Tracking, parse_params


@pytest.fixture
def made(tmp_path: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a store of its own."""
    name = "before the move"  # with what an address quotes
    client = MlflowClient(f"sqlite:///{mlflow_store / 'mlflow.db'}")
    client.get_experiment_by_name("any") or client.create_experiment("any", mlflow_store.as_uri())  # makes the tables
    (tmp_path / name).mkdir()
    shutil.copy(mlflow_store / "mlflow.db", tmp_path / name)
    monkeypatch.chdir(tmp_path / name)
    return tmp_path / name


def experiment(settings: dict[str, Any]) -> Params:
    return parse_params({**settings, "tracking": {"experiment": "velocitune"}})


def log(params: Params, file: str) -> str:
    """Log a file to the parent run; return the run's ID."""
    Path(file).write_text(file)
    tracker = Tracker(params)
    assert tracker.active
    tracker.log_artifact(Path(file))
    utils._artifact_repos_cache.clear()  # a process remembers where the artifacts of a run are
    return tracker.parent


@pytest.mark.parametrize("copied", [False, True])
def test_artifacts_follow_a_workspace_that_was_moved_or_copied(
    made: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    run = log(experiment(settings), "old.txt")
    after = made.parent / f"after-{copied}"
    (shutil.copytree if copied else shutil.move)(str(made), str(after))
    monkeypatch.chdir(after)
    assert log(experiment(settings), "new.txt") == run
    client = MlflowClient(f"sqlite:///{after / 'mlflow.db'}")
    kept = {each.path for each in client.list_artifacts(run)}
    assert kept == {"config.yaml", "old.txt", "new.txt"}
    assert Path(client.download_artifacts(run, "old.txt")).read_text() == "old.txt"
    files = {path.name for path in (after / "mlartifacts").rglob("*.txt")}
    assert files == {"old.txt", "new.txt"} and made.exists() == copied
    assert not list(made.rglob("mlartifacts/**/new.txt"))


def test_artifacts_that_were_not_copied_with_the_store_stay_where_they_are(
    made: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = log(experiment(settings), "old.txt")
    after = made.parent / "after"
    after.mkdir()
    shutil.copy("mlflow.db", after)
    monkeypatch.chdir(after)
    settings["training"]["seed"] = 2
    log(experiment(settings), "new.txt")
    client = MlflowClient(f"sqlite:///{after / 'mlflow.db'}")
    assert Path(client.download_artifacts(run, "old.txt")).read_text() == "old.txt"
    assert {path.name for path in (after / "mlartifacts").rglob("*.txt")} == {"new.txt"}


def test_a_root_that_lies_elsewhere_and_other_experiments_stay_as_they_are(
    made: Path, settings: dict[str, Any]
) -> None:
    places = {"velocitune": made.parent / "root/mlartifacts", "other": made.parent / "gone/mlartifacts"}
    places["velocitune"].mkdir(parents=True)
    client = MlflowClient(f"sqlite:///{made / 'mlflow.db'}")
    for name, place in places.items():
        client.create_experiment(name, place.as_uri())
    assert Tracker(experiment(settings)).active
    for name, place in places.items():
        kept = client.get_experiment_by_name(name)
        assert kept is not None and kept.artifact_location == place.as_uri()


@pytest.fixture
def temporary(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `dvc exp run --temp` works, with the variable that DVC sets for its stages."""
    folder = made / ".dvc/tmp/exps/standalone/tmp1"
    folder.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(made))
    monkeypatch.setenv("DVC_EXP_NAME", "bumpy-road")
    monkeypatch.chdir(folder)
    return folder


def test_the_record_of_a_temporary_experiment_is_in_the_store_of_the_repository(
    made: Path, temporary: Path, settings: dict[str, Any]
) -> None:
    run = log(experiment(settings), "file.txt")
    shutil.rmtree(temporary)  # as DVC does
    client = MlflowClient(f"sqlite:///{made / 'mlflow.db'}")
    assert client.get_run(run).data.tags["dvc.experiment"] == "bumpy-road"
    assert Path(client.download_artifacts(run, "file.txt")).read_text() == "file.txt"


def test_a_temporary_experiment_shares_runs_with_the_repository(
    made: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    finished = made / "runs/proxy-1"
    finished.mkdir(parents=True)
    (finished / "job.json").touch()
    (made / "runs/packing").mkdir()
    with exclusive():  # as every command does
        assert Path("runs/proxy-1/job.json").exists() and not paths.PACKING.exists()
    share_run(Path("runs/training-2"))
    Path("runs/training-2/result.json").touch()
    shutil.rmtree(temporary)
    assert (made / "runs/training-2/result.json").exists() and (finished / "job.json").exists()


def test_another_folder_is_no_temporary_copy(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(made))  # which DVC sets for every stage
    assert home() == made
    monkeypatch.setenv("DVC_ROOT", str(made.parent / "elsewhere"))
    assert home() == made
    share_run(Path("runs/training-2"))
    assert not os.path.lexists("runs/training-2")


def test_addresses_lead_to_the_runs_of_the_experiment(made: Path, settings: dict[str, Any]) -> None:
    query = "runs?workflowType=machine_learning"
    assert address_of(Tracking()) == "http://127.0.0.1:5000/#/experiments?workflowType=machine_learning"
    tracker = Tracker(experiment(settings))
    assert address_of(Tracking()) == f"http://127.0.0.1:5000/#/experiments/{tracker.experiment}/{query}"
    server = Tracking(uri="http://ann:pa55@example.org/")
    assert address_of(server) == "http://example.org/#/experiments?workflowType=machine_learning"
    with served_at("http://127.0.0.1:5010"):  # `make serve` at another port
        assert address_of(Tracking()).startswith("http://127.0.0.1:5010/#/experiments/")
        assert address_of(server).startswith("http://example.org/")
    assert address_of(Tracking()).startswith("http://127.0.0.1:5000/#/experiments/")


def test_the_address_of_a_server_with_a_password_opens_at_the_experiment(made: Path, tmp_path: Path) -> None:
    port = free_port()
    command = ("mlflow", "server", "--backend-store-uri", f"sqlite:///{made}/mlflow.db", "--port", str(port))
    with running(tmp_path, *command, "--workers", "1", health=f"http://127.0.0.1:{port}/health"):
        settings = Tracking(uri=f"http://ann:pa55@127.0.0.1:{port}", experiment="mine")
        _, experiment = open_store(settings)
        page = address_of(settings)
        with urllib.request.urlopen(page.partition("#")[0], timeout=10) as answer:
            assert answer.status == 200
    assert page == f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs?workflowType=machine_learning"
