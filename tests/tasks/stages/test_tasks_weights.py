"""The stage `weights`: which weights the training starts from, and what finding them cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.runs.jobs import initial_domain_weights
from tasks.runs.launch import TrainingFailedError, TrainingStoppedError
from tasks.runs.swarm_rounds import Swarm
from tasks.stages.weights import SwarmFailedError, finished_runs, swarm_of, train_swarm_run, write_weights
from tasks.workspace import paths
from velocitune_core.config import ConfigError, Mixture, Params, StrategyConfig
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, TrainResult

pytestmark = pytest.mark.usefixtures("forked_program")


@pytest.fixture
def params(measured: Params, no_views: Callable[[str], None]) -> Params:
    no_views("tasks.stages.weights")
    no_views("tasks.stages.proxies")
    return measured


def under(params: Params, strategy: str, **options: Any) -> Params:
    return params.model_copy(update={"strategy": StrategyConfig(name=strategy, options=options)})


def test_a_strategy_without_a_search_starts_from_the_initial_weights_at_no_cost(params: Params) -> None:
    found = write_weights.fn(params)
    assert found.domain_weights == initial_domain_weights(params, Manifest.read(paths.MANIFEST))
    assert (found.found_by, found.strategy, found.held) == ("initial", "velocitune", False)
    assert found.runs == [] and found.planned is None
    assert StartingWeights.read(paths.WEIGHTS) == found
    assert not paths.RUNS.exists()


def test_a_search_finds_weights_and_its_runs_are_priced(params: Params) -> None:
    found = write_weights.fn(under(params, "doremi"))
    assert (found.found_by, found.held) == ("search", True)
    assert [run.name for run in found.runs] == ["training-reference", "training-search"]
    results = [TrainResult.read(paths.RUNS / run.folder / "result.json") for run in found.runs]
    assert found.domain_weights == results[-1].mean_domain_weights
    assert [run.tokens for run in found.runs] == [result.tokens for result in results] == [2560, 2560]
    assert found.searched == results[-1].domain_weights and len(found.searched) > 1  # what the report draws
    reference, search = found.runs  # 6·N and more per token; a reference evaluates every batch of the search, too
    assert 6 * results[0].parameters * 2560 < reference.flops < search.flops
    assert write_weights.fn(under(params, "doremi")) == found  # from the finished runs
    assert sorted(path.name for path in paths.RUNS.iterdir()) == sorted(run.folder for run in found.runs)


def planned(params: Params, *measured: str, **objective: Any) -> Params:
    """Six runs of eight steps; the static one is the proxy of that size. Also sets that are only measured."""
    mixture = {"objective": objective, "swarm": {"runs": 6, "fractions": [0.8], "bootstrap": 10}}
    only = {name: params.domains["code"].model_copy(update={"measure_only": True}) for name in measured}
    changed = {"mixture": Mixture.model_validate(mixture), "domains": {**params.domains, **only}}
    return under(params.model_copy(update=changed), "planned")


def trained(params: Params) -> Swarm:
    """The swarm of the settings after its runs, all at once."""
    swarm = swarm_of(params)
    return swarm.after_round([(job, train_swarm_run.fn(job, params)) for job in swarm.waiting])


@pytest.mark.slow
def test_a_plan_comes_from_a_swarm_and_another_objective_costs_no_training(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    manifest.model_copy(update={"measured": {"target": manifest.domains["law"]}}).write(paths.MANIFEST)
    initial.model_copy(update={"measured": {"target": 4.2}}).write(paths.INITIAL)  # a set without training text
    macro = planned(params)
    found = write_weights.fn(macro, trained(macro))
    assert found == StartingWeights.read(paths.WEIGHTS)
    assert (found.found_by, found.strategy, found.held) == ("planned", "planned", True)
    assert list(found.domain_weights) == ["code", "law"] and sum(found.domain_weights.values()) == pytest.approx(1)
    assert found.planned is not None and set(found.planned.law["evidence"]) == {"code", "law", "target"}
    assert all(run.losses["target"] == pytest.approx(run.losses["law"]) for run in found.planned.runs)  # the same rows
    assert found.planned.plan["baseline"] == "static" and len(found.planned.plan["optima"]) == 10
    first, *others = found.planned.runs
    assert (first.name, first.shared) == ("proxy-0_8-seed-1", True)  # the static run of this size
    assert [run.name for run in found.own_runs] == [run.name for run in others]
    assert [run.name for run in others] == [f"swarm-0_8-seed-1-{number:02d}" for number in range(1, 6)]
    assert found.planned.worth.share == pytest.approx(6 * 0.8, rel=0.05)

    monkeypatch.setattr("tasks.runs.launch.run_program", never)
    code = planned(params, "target", average={"target": 1.0}, least_share={"code": 0.5})
    other = write_weights.fn(code, trained(code))
    assert other.planned is not None and other.planned.plan["average"] == "shares"
    assert other.domain_weights["code"] >= 0.5 > found.domain_weights["code"]


def never(*_: object) -> int:
    raise AssertionError("a run is started")


def test_a_plan_from_too_few_runs_is_refused_and_missing_ones_are_named(
    params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = swarm_of(planned(params)).waiting
    results = [TrainResult.model_construct(name=job.name) for job in jobs]
    failed = TrainingFailedError("ended with status 1")
    outcomes = [*results[:3], failed, failed, failed]
    assert [job.name for job, _ in finished_runs(jobs, outcomes)] == [job.name for job in jobs[:3]]
    assert "swarm-0_8-seed-1-03, swarm-0_8-seed-1-04, swarm-0_8-seed-1-05 failed" in caplog.text
    with pytest.raises(SwarmFailedError, match="law of 2 domains needs at least 3 runs, not 2"):
        finished_runs(jobs, [*outcomes[:2], *[failed] * 4])
    with pytest.raises(TrainingStoppedError):
        finished_runs(jobs, [*outcomes[:5], TrainingStoppedError("ended with status 75")])


def test_an_objective_that_contradicts_what_was_measured_is_refused_before_any_run(params: Params) -> None:
    with pytest.raises(ConfigError, match=r"mixture\.objective\.epochs fills 0\.\d+ of the run"):
        swarm_of(planned(params, epochs=0.01))


def test_forgetting_that_no_run_of_the_model_shows_is_refused_before_any_run(params: Params) -> None:
    """A sibling's losses are not the model's, and the targets, written by hand, say nothing of `qa`."""
    initial = InitialLosses.read(paths.INITIAL)
    initial.model_copy(update={"measured": {"qa": 4.2}}).write(paths.INITIAL)
    settings = planned(params, "qa", forgetting={"qa": 0.1})
    swarm = settings.mixture.swarm.model_copy(update={"model": params.model.path})
    with pytest.raises(ConfigError, match=r"mixture\.objective\.forgetting of qa: no static run of the model measured"):
        swarm_of(settings.model_copy(update={"mixture": settings.mixture.model_copy(update={"swarm": swarm})}))
    assert not paths.RUNS.exists()
