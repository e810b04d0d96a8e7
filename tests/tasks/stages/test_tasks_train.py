"""The stage `train`: its files come from one finished run, and a search is run before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.runs.jobs import training_job
from tasks.runs.launch import TrainingFailedError
from tasks.runs.run_folder import run_folder
from tasks.stages.train import train_model
from tasks.workspace import paths
from velocitune_core.config import Params, StrategyConfig
from velocitune_core.contracts import DomainTarget, InitialLosses, Manifest, Targets, TrainResult
from velocitune_core.model.io import model_digest

pytestmark = pytest.mark.usefixtures("forked_program")


@pytest.fixture
def params(prepared: tuple[Params, Manifest], no_views: Callable[[str], None]) -> Params:
    """The stages before have run."""
    no_views("tasks.stages.train")
    InitialLosses(
        precision="float32", losses={"code": 4.2, "law": 4.2}, tokens={"code": 135, "law": 135}, seconds=1.0
    ).write(paths.INITIAL)
    targets = {"code": DomainTarget(target=2.0), "law": DomainTarget(target=3.0)}
    Targets(domains=targets, token_budget=2560).write(paths.TARGETS)
    return prepared[0]


def under(params: Params, strategy: str, **options: Any) -> Params:
    return params.model_copy(update={"strategy": StrategyConfig(name=strategy, options=options)})


def folder_of(params: Params) -> Path:
    manifest, initial, targets = (
        Manifest.read(paths.MANIFEST),
        InitialLosses.read(paths.INITIAL),
        Targets.read(paths.TARGETS),
    )
    return run_folder(training_job(params, manifest, initial, targets))


def test_result_events_and_model_are_those_of_the_run(params: Params) -> None:
    result = train_model.fn(params)
    folder = folder_of(params)
    assert (result.name, result.strategy, result.steps) == ("training", "velocitune", 10)  # 2,560 / (16 · 16)
    assert TrainResult.read(paths.TRAIN) == result == TrainResult.read(folder / "result.json")
    assert paths.EVENTS.read_bytes() == (folder / "events.jsonl").read_bytes()
    assert model_digest(paths.TRAINED_MODEL) == model_digest(folder / "model")
    assert train_model.fn(params) == result  # and is not run again
    assert [path.name for path in paths.RUNS.iterdir()] == [folder.name]


def test_weights_are_found_in_a_search_and_then_held(params: Params) -> None:
    result = train_model.fn(under(params, "doremi"))
    names = sorted(path.name.rpartition("-")[0] for path in paths.RUNS.iterdir() if path.is_dir())
    assert len(names) == 3 and "training" in names  # the reference model, the search, and the run under its weights
    (search,) = [path for path in paths.RUNS.iterdir() if "search" in path.name]
    found = TrainResult.read(search / "result.json").mean_domain_weights
    assert result.strategy == "static"
    assert [point.weights for point in result.domain_weights] == [pytest.approx(found)] * len(result.domain_weights)


def test_a_run_that_fails_leaves_the_results_before(params: Params) -> None:
    before = train_model.fn(params)
    other = under(params, "static")
    folder = folder_of(other)
    folder.mkdir(parents=True)
    (folder / "model").touch()  # a file where the model must go
    with pytest.raises(TrainingFailedError, match="training-"):
        train_model.fn(other)
    assert TrainResult.read(paths.TRAIN) == before
    assert model_digest(paths.TRAINED_MODEL) == model_digest(folder_of(params) / "model")
