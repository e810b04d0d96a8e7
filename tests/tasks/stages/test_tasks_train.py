"""The stage `train`: its files come from one finished run, under the weights that the stage `weights` found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.runs.jobs import initial_domain_weights, training_job
from tasks.runs.launch import TrainingFailedError
from tasks.runs.planned import weights_inputs
from tasks.runs.run_folder import run_folder
from tasks.stages.train import train_model
from tasks.workspace import paths
from velocitune_core.config import Params, StrategyConfig
from velocitune_core.contracts import ContractError, InitialLosses, Manifest, StartingWeights, Targets, TrainResult
from velocitune_core.model.io import model_digest
from velocitune_core.train.events import EventFile, read_events
from velocitune_core.train.timeline import timeline

pytestmark = pytest.mark.usefixtures("forked_program")


@pytest.fixture
def params(measured: Params, no_views: Callable[[str], None]) -> Params:
    """The stages before have run."""
    no_views("tasks.stages.train")
    weights(measured).write(paths.WEIGHTS)
    return measured


def weights(params: Params, **changes: Any) -> StartingWeights:
    start = initial_domain_weights(params, Manifest.read(paths.MANIFEST))
    found = {"strategy": params.strategy.name, "found_by": "initial", "domain_weights": start}
    return StartingWeights.model_validate(found | changes)


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
    assert TrainResult.read(paths.TRAIN) == result
    assert result.model_copy(update={"settings": None}) == TrainResult.read(folder / "result.json")
    assert result.settings is not None and result.settings.everything["training"]["token_budget"] == 2560
    assert paths.EVENTS.read_bytes() == (folder / "events.jsonl").read_bytes()
    assert model_digest(paths.TRAINED_MODEL) == model_digest(folder / "model")
    assert train_model.fn(params) == result  # and is not run again
    assert [path.name for path in paths.RUNS.iterdir()] == [folder.name]


def test_steps_that_a_resume_abandoned_are_not_in_the_results(params: Params) -> None:
    """Killed after its last step and before its result, and resumed from a checkpoint of step 5."""
    train_model.fn(params)
    file = folder_of(params) / "events.jsonl"
    *passed, finished = read_events(file)
    started = passed[0].model_copy(update={"step": 5, "resumed_from": 5})
    repeated = [event for event in passed if event.step > 5]
    attempt = EventFile(file)
    for event in (started, *repeated, finished):
        attempt(event)
    attempt.close()
    train_model.fn(params)
    shown = list(read_events(paths.EVENTS))
    assert shown == timeline(read_events(file)) and len(shown) < len(list(read_events(file)))
    assert [event.attempt for event in shown if event.step > 5] == [2] * (len(repeated) + 1)


def test_weights_that_were_found_are_held(params: Params) -> None:
    found = {"code": 0.3, "law": 0.7}
    params = params.model_copy(update={"strategy": params.strategy.model_copy(update={"search": 0.5})})
    read = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL), Targets.read(paths.TARGETS)
    inputs = weights_inputs(params, training_job(params, *read), *read)
    weights(params, found_by="search", domain_weights=found, inputs=inputs).write(paths.WEIGHTS)
    with pytest.raises(
        ContractError, match=r"(?s)under other settings.*search: 'training-search-\w+' → 'training-search-"
    ):
        train_model.fn(params.model_copy(update={"strategy": params.strategy.model_copy(update={"search": 0.25})}))
    result = train_model.fn(params)
    assert result.strategy == "static"
    assert [point.weights for point in result.domain_weights] == [pytest.approx(found)] * len(result.domain_weights)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"strategy": "doremi"}, "of the strategy 'doremi', not of 'velocitune'"),
        (
            {"domain_weights": {"code": 0.5, "cli": 0.5}},
            r"are of \['cli', 'code'\], and the domains are \['code', 'law'\]",
        ),
        ({"domain_weights": {"code": 0.25, "law": 0.75}}, "not the initial domain weights"),
        ({"found_by": "search", "inputs": {"search": "training-search-0"}}, "were found under other settings"),
    ],
)
def test_weights_of_other_settings_are_refused(params: Params, changes: dict[str, Any], problem: str) -> None:
    weights(params, **changes).write(paths.WEIGHTS)
    with pytest.raises(ContractError, match=rf"{problem}.*run the stage `weights` again"):
        train_model.fn(params)


def test_a_run_that_fails_leaves_the_results_before(params: Params) -> None:
    before = train_model.fn(params)
    other = params.model_copy(update={"strategy": StrategyConfig(name="static")})
    weights(other).write(paths.WEIGHTS)
    folder = folder_of(other)
    folder.mkdir(parents=True)
    (folder / "model").touch()  # a file where the model must go
    with pytest.raises(TrainingFailedError, match="training-"):
        train_model.fn(other)
    assert TrainResult.read(paths.TRAIN) == before
    assert model_digest(paths.TRAINED_MODEL) == model_digest(folder_of(params) / "model")
