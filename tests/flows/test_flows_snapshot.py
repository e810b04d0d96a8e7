"""params.yaml edited while the pipeline runs: nothing is committed under settings that did not make it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import result_samples as samples
import yaml
from dvc.exceptions import ReproductionError
from dvc.repo import Repo
from dvc.stage import PipelineStage

from flows import pipeline
from tasks.workspace.dvc_stages import is_up_to_date
from tasks.workspace.fresh import fresh_since
from tasks.workspace.params_file import ParamsChangedError, params_tree

STAGES = {
    "train": {"cmd": "true", "params": ["seed"], "outs": ["trained.txt"]},
    "report": {"cmd": "true", "deps": ["trained.txt"], "outs": ["report.txt"]},
}
STAGE = """
from pathlib import Path

from tasks.workspace import preflight
from tasks.workspace.params_file import params_tree
from tasks.workspace.stage_cli import run_stage

preflight.checked_params = lambda comparing: None  # it would want all settings


def stage():
    if Path("edit").exists():
        Path("params.yaml").write_text("seed: 2\\n")
    Path("trained.txt").write_text(str(params_tree()["seed"]))


run_stage(stage, arguments=[])
"""
Act = Callable[[], object]


class Toy:
    """A workspace of two stages under a real DVC: `train` writes the seed of the settings, `report` copies it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.announced: list[list[str]] = []
        self.during_training: Act = lambda: None
        Repo.init(no_scm=True).close()
        Path("dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
        self.edit(1)
        monkeypatch.setattr(pipeline, "get_run_logger", lambda: logging.getLogger("toy"))
        monkeypatch.setattr(pipeline, "settle_params", lambda overrides, comparing: None)
        for name in ("read_params", "name_run", "publish_outcome", "publish_recorded"):  # they would want all settings
            monkeypatch.setattr(pipeline, name, lambda *_, **__: None)
        left = SimpleNamespace(from_stage=lambda *_: "")
        monkeypatch.setattr(
            pipeline, "announce_length", lambda _, stages, compare: self.announced.append(stages) or left
        )
        monkeypatch.setattr(pipeline, "STAGES", {"train": self.train, "report": self.report})

    def edit(self, seed: int) -> None:
        Path("params.yaml").write_text(f"seed: {seed}\n")

    def train(self) -> None:
        self.ran.append("train")
        self.during_training()
        Path("trained.txt").write_text(str(params_tree()["seed"]))

    def report(self) -> None:
        self.ran.append("report")
        Path("report.txt").write_text(Path("trained.txt").read_text())

    def run(self, **options: Any) -> list[str]:
        self.ran.clear()
        return pipeline.velocitune.fn(**options)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.chdir(tmp_path)
    return Toy(monkeypatch)


def test_a_pipeline_commits_what_it_made_and_then_skips_it(toy: Toy) -> None:
    assert toy.run() == ["train", "report"] == toy.ran
    assert toy.announced == [["train", "report"]]  # once, before the work
    assert is_up_to_date("train") and is_up_to_date("report")
    assert toy.run() == [] == toy.ran and len(toy.announced) == 1


def test_an_edit_during_the_run_is_not_committed_as_what_made_the_result(toy: Toy) -> None:
    toy.during_training = lambda: toy.edit(2)
    with pytest.raises(ParamsChangedError, match=r"params.yaml was edited during the run: train, report"):
        toy.run()
    assert toy.ran == ["train", "report"]  # to the end, under the settings of the start
    assert Path("report.txt").read_text() == "1"
    assert not Path("dvc.lock").exists() and not is_up_to_date("train")
    toy.during_training = lambda: None
    assert toy.run() == ["train", "report"] and Path("report.txt").read_text() == "2"
    assert is_up_to_date("train") and is_up_to_date("report")


def test_an_edit_while_dvc_hashes_is_not_committed_as_what_made_the_result(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC hashes a stage's dependencies before it reads params.yaml; the edit comes between."""
    save_deps = PipelineStage.save_deps

    def edit_then_read(stage: PipelineStage, **options: Any) -> None:
        toy.edit(2)
        save_deps(stage, **options)

    with monkeypatch.context() as patch:
        patch.setattr(PipelineStage, "save_deps", edit_then_read)
        with pytest.raises(ParamsChangedError, match="train, report ran under"):
            toy.run()
    assert Path("trained.txt").read_text() == "1"
    assert not Path("dvc.lock").exists() and not list(Path(".dvc/cache").rglob("runs/*"))  # nor in the run cache
    assert toy.run() == ["train", "report"] and Path("report.txt").read_text() == "2"
    assert is_up_to_date("train") and list(Path(".dvc/cache").rglob("runs/*"))


@pytest.mark.slow
def test_an_edit_during_dvc_repro_is_not_recorded_as_what_made_the_result(toy: Toy) -> None:
    Path("stage.py").write_text(STAGE)
    stage = {"cmd": f"{sys.executable} stage.py", "params": ["seed"], "outs": ["trained.txt"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    Path("edit").touch()
    with Repo(".") as repo, pytest.raises(ReproductionError):
        repo.reproduce("train")
    assert Path("trained.txt").read_text() == "1" and Path("params.yaml").read_text() == "seed: 2\n"
    assert not Path("dvc.lock").exists() and not is_up_to_date("train")
    Path("edit").unlink()
    with Repo(".") as repo:
        repo.reproduce("train")
    assert Path("trained.txt").read_text() == "2" and is_up_to_date("train")


def test_fresh_repeats_the_stages_with_runs_and_only_for_this_run(toy: Toy) -> None:
    toy.run()
    moments: list[float | None] = []
    toy.during_training = lambda: moments.append(fresh_since())
    assert toy.run(fresh=True) == ["train"] == toy.ran  # the report is of the same result, and up to date
    assert moments[0] is not None and fresh_since() is None


def test_a_comparison_prints_the_targets_which_its_last_table_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[float] = []
    monkeypatch.setattr(pipeline, "STAGES", {"targets": lambda: None})
    for name, made in (("Targets", samples.targets()), ("InitialLosses", samples.initial())):
        monkeypatch.setattr(pipeline, name, SimpleNamespace(read=lambda _, made=made: made))
    monkeypatch.setattr(pipeline, "print_targets", lambda targets, losses: printed.extend(losses.values()))
    pipeline.run_one("targets", "report")
    assert not printed
    pipeline.run_one("targets", "compare")
    assert printed == list(samples.initial().losses.values())
