"""What MLflow shows of a pipeline's end: the status of the command, and DVC's hashes of what was committed alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from databases import copy_database
from dvc.lock import LockError
from dvc.repo import Repo
from mlflow import MlflowClient
from mlflow.entities import Run

from flows import pipeline
from tasks.views.mlflow_recorded import log_recorded
from tasks.views.mlflow_runs import Tracker
from tasks.workspace import dvc_stages
from tasks.workspace.params_file import ParamsChangedError, read_params

MINIATURE = Path(__file__).parents[1] / "miniature.yaml"
STAGES = {
    "prepare": {"cmd": "true", "params": ["data"], "outs": ["prepared.txt"]},
    "train": {"cmd": "true", "deps": ["prepared.txt"], "params": ["training"], "outs": ["trained.txt"]},
    "report": {"cmd": "true", "deps": ["trained.txt"], "outs": ["report.txt"]},
}


def nothing() -> None: ...


def store_here() -> str:
    """Return the absolute address of the store: MLflow keeps one connection per address in a process."""
    return f"sqlite:///{Path('mlflow.db').absolute()}"


class Recorded:
    """A workspace of three stages under a real DVC, with MLflow's real store; the last one publishes as `report`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tree = yaml.safe_load(MINIATURE.read_text())
        self.tree["tracking"] = {"uri": store_here(), "experiment": "recorded"}
        self.trained = "first"
        self.during_training: Callable[[], object] = nothing
        Repo.init(no_scm=True).close()
        Path("dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
        self.edit(2.0e-3)
        monkeypatch.setattr(pipeline, "get_run_logger", lambda: logging.getLogger("recorded"))
        monkeypatch.setattr(pipeline, "settle_params", lambda overrides, comparing: None)
        monkeypatch.setattr(pipeline, "publish_outcome", lambda goal, params: None)
        left = SimpleNamespace(from_stage=lambda *_: "")
        monkeypatch.setattr(pipeline, "announce_length", lambda *_: left)
        monkeypatch.setattr(pipeline, "STAGES", {name: getattr(self, name) for name in STAGES})

    def edit(self, learning_rate: float) -> None:
        self.tree["training"]["optimizer"]["learning_rate"] = learning_rate
        Path("params.yaml").write_text(yaml.safe_dump(self.tree))

    def prepare(self) -> None:
        Path("prepared.txt").write_text("prepared")

    def train(self) -> None:
        self.during_training()
        Path("trained.txt").write_text(self.trained)

    def report(self) -> None:
        Path("report.txt").write_text(f"report of {self.trained}")
        tracker = Tracker(read_params())
        log_recorded(tracker)
        tracker.finish()

    def run(self, fresh: bool = False) -> Run:
        """Run the pipeline; return the parent run of its settings."""
        params = read_params()
        try:
            pipeline.velocitune.fn(fresh=fresh)
        finally:
            self.parent = self.parent_of(params)
        return self.parent

    def parent_of(self, params: Any) -> Run:
        client = MlflowClient(store_here())
        experiment = client.get_experiment_by_name("recorded")
        assert experiment is not None
        rate = str(params.training.optimizer.learning_rate)
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if run.data.params["training.optimizer.learning_rate"] == rate]
        return parent


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Path) -> Recorded:
    monkeypatch.chdir(tmp_path)
    copy_database(mlflow_database, tmp_path / "mlflow.db")
    return Recorded(monkeypatch)


def hashes(run: Run) -> dict[str, str]:
    return {tag: value for tag, value in run.data.tags.items() if tag.startswith("dvc.")}


def lock_of(run: Run) -> set[str]:
    """Return the stages in the lock file that was logged."""
    client = MlflowClient(store_here())
    return set(yaml.safe_load(Path(client.download_artifacts(run.info.run_id, "dvc.lock")).read_text())["stages"])


def of_files(*names: str) -> dict[str, str]:
    return {f"dvc.{name}": md5(Path(name).read_bytes(), usedforsecurity=False).hexdigest() for name in names}


def test_a_finished_pipeline_has_the_hashes_of_all_its_outputs(recorded: Recorded) -> None:
    parent = recorded.run()
    assert parent.info.status == "FINISHED"
    assert hashes(parent) == of_files("prepared.txt", "trained.txt", "report.txt")  # those of its last stage too
    assert lock_of(parent) == set(STAGES)


def test_a_pipeline_whose_settings_were_edited_has_failed_and_shows_no_hashes_of_the_run_before(
    recorded: Recorded,
) -> None:
    before = recorded.run()
    recorded.edit(1.0e-3)
    recorded.trained, recorded.during_training = "second", lambda: recorded.edit(3.0e-3)
    with pytest.raises(ParamsChangedError, match="train, report ran under"):
        recorded.run()
    assert recorded.parent.info.run_id != before.info.run_id and recorded.parent.info.status == "FAILED"
    assert hashes(recorded.parent) == of_files("prepared.txt")  # what was up to date, and is recorded
    assert lock_of(recorded.parent) == {"prepare"}
    recorded.edit(1.0e-3)
    recorded.during_training = nothing
    again = recorded.run()
    assert again.info.run_id == recorded.parent.info.run_id and again.info.status == "FINISHED"
    assert hashes(again) == of_files("prepared.txt", "trained.txt", "report.txt")


def test_the_same_result_under_other_settings_has_no_record_of_those_before(recorded: Recorded) -> None:
    recorded.run()
    recorded.edit(1.0e-3)
    recorded.during_training = lambda: recorded.edit(3.0e-3)
    with pytest.raises(ParamsChangedError):
        recorded.run()
    assert "train" not in lock_of(recorded.parent) and "dvc.trained.txt" not in hashes(recorded.parent)


def test_hashes_that_are_no_longer_true_are_removed(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same settings again, with `--fresh`, and other results."""
    monkeypatch.setenv("DVC_EXP_NAME", "mine")
    recorded.run()
    recorded.trained, recorded.during_training = "second", lambda: recorded.edit(3.0e-3)
    monkeypatch.setattr(pipeline, "STAGES_WITH_RUNS", {"train", "report"})
    with pytest.raises(ParamsChangedError):
        recorded.run(fresh=True)
    assert recorded.parent.info.status == "FAILED"
    assert hashes(recorded.parent) == of_files("prepared.txt") | {"dvc.experiment": "mine"}


def test_a_pipeline_that_dvc_keeps_waiting_for_too_long_has_failed(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_stages, "SECONDS_FOR_DVC", 0.0)
    recorded.run()
    recorded.trained = "second"
    monkeypatch.setattr(pipeline, "STAGES_WITH_RUNS", {"report"})
    Path("trained.txt").write_text("second")
    with Repo(".") as other:
        report = recorded.report
        monkeypatch.setitem(pipeline.STAGES, "report", lambda: (report(), other.lock.lock()))
        try:
            with pytest.raises(LockError):
                recorded.run(fresh=True)
        finally:
            other.lock.unlock()
    assert recorded.parent.info.status == "FAILED"


def test_a_pipeline_that_fails_after_its_last_stage_has_failed(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(pipeline, "publish_outcome", fail)
    with pytest.raises(RuntimeError):
        recorded.run()
    assert recorded.parent.info.status == "FAILED"
