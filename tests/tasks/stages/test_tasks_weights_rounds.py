"""A swarm in rounds, and one after a domain was added: which runs there are, and which are taken again.

What its runs end with is made up: each set learns from its own domain alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.runs.launch import TrainingFailedError
from tasks.runs.run_folder import finished_result, record_start, run_folder
from tasks.runs.swarm import swarm_jobs
from tasks.runs.swarm_rounds import Swarm, further_names
from tasks.stages.weights import SwarmFailedError, after_round, decide, finished_runs, swarm_of, write_weights
from tasks.workspace import paths
from velocitune_core.config import Mixture, Params, StrategyConfig
from velocitune_core.contracts import (
    DomainTarget,
    InitialLosses,
    Manifest,
    Planned,
    StartingWeights,
    SwarmRound,
    Targets,
    TrainResult,
)
from velocitune_core.contracts.train_result import Timings
from velocitune_core.planned_weights import Decision
from velocitune_core.report.swarm_rounds import round_rows
from velocitune_core.train.job import TrainJob


@pytest.fixture
def params(measured: Params, no_views: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Params:
    no_views("tasks.stages.weights")
    monkeypatch.setattr("tasks.stages.weights.decide", decide.fn)
    return planned(measured, runs=7, rounds={"first": 4, "runs": 2, "tolerance": 0.0})


def planned(params: Params, **swarm: Any) -> Params:
    mixture = Mixture.model_validate({"swarm": {"fractions": [0.8], "bootstrap": 5, **swarm}})
    return params.model_copy(update={"mixture": mixture, "strategy": StrategyConfig(name="planned", options={})})


def ended(job: TrainJob) -> TrainResult:
    """The result of a job, in its folder: the one that is there, or one that is made up."""
    if (found := finished_result(job)) is not None:
        return found
    folder, weights = run_folder(job), job.initial_domain_weights
    folder.mkdir(parents=True)
    noise = np.random.default_rng(int(job.fingerprint()[:8], 16)).normal(0, 0.02, len(weights))
    result = TrainResult(
        name=job.name,
        strategy="static",
        precision="float32",
        steps=job.total_steps,
        tokens=job.total_steps * 256,
        parameters=1,
        final={name: 2 + (0.2 + weights[name]) ** -0.5 + off for name, off in zip(weights, noise, strict=True)},
        points=[],
        domain_weights=[],
        mean_domain_weights=weights,
        tokens_per_domain={name: round(1e6 * weight) for name, weight in weights.items()},
        epochs_per_domain={},
        tokens_per_second=1.0,
        seconds=Timings(),
    )
    record_start(folder, job)
    result.write(folder / "result.json")
    return result


def from_the_start(params: Params, lost_in: int | None = None) -> Swarm:
    """The swarm of the settings, from its first round to its end.

    Args:
        lost_in: round in which all that is in memory is lost, after its first run.
    """
    swarm, number = swarm_of(params), 1
    while swarm.waiting:
        results = []
        for job in swarm.waiting:
            results.append(ended(job))
            if number == lost_in:
                raise KeyboardInterrupt
        swarm, number = after_round(params, swarm, results), number + 1
    return swarm


def test_a_swarm_that_is_started_again_between_rounds_goes_on_as_it_would_have(params: Params) -> None:
    with pytest.raises(KeyboardInterrupt):
        from_the_start(params, lost_in=2)
    before = {path.name for path in paths.RUNS.iterdir()}
    assert len(before) == 5
    swarm = from_the_start(params)
    assert {path.name for path in paths.RUNS.iterdir()} == {job.folder_name for job in swarm.started} > before
    further = [f"swarm-0_8-seed-1-{which}" for which in ("round-2-00", "round-2-01", "round-3-00")]
    assert [job.name for job in swarm.started[4:]] == further
    assert set(further) < further_names(params.mixture.swarm, 2)
    assert len({tuple(job.initial_domain_weights.values()) for job in swarm.started}) == 7
    assert {job.total_steps for job in swarm.started} == {8}

    found = write_weights.fn(params, swarm)
    assert found == StartingWeights.read(paths.WEIGHTS) and found.planned is not None
    rounds = found.planned.rounds
    assert [(each.runs, each.further, each.settled) for each in rounds] == [(4, 2, False), (6, 1, False), (7, 0, False)]
    assert [each.share for each in rounds] == pytest.approx([4 * 0.8, 6 * 0.8, 7 * 0.8], rel=0.05)
    assert all(each.expected > 0 for each in rounds[:-1]) and rounds[-1].expected == 0
    assert [row["next"][:10] for row in round_rows(found.planned.rounds)] == ["2 mixtures", "1 mixture,", "end"]
    assert "judged after 4, 6 and 7 runs and ended because they are all" in " ".join(found.planned.explanation)


def test_a_swarm_ends_when_the_optimum_is_known_well_enough(params: Params) -> None:
    params = planned(params, runs=20, rounds={"first": 4, "runs": 2, "tolerance": 0.5})
    swarm = from_the_start(params)
    assert len(swarm.finished) == 4 and [each.settled for each in swarm.rounds] == [True]
    found = write_weights.fn(params, swarm).planned
    assert found is not None and "judged after 4 runs and ended with a regret of 0." in " ".join(found.explanation)


def test_seeds_take_turns_and_every_mixture_is_trained_at_every_size(params: Params) -> None:
    swarm = {"seeds": [1, 2], "fractions": [0.4, 0.8], "runs": 4}
    params = planned(params, **swarm, rounds={"first": 3, "runs": 2, "tolerance": 0.0})
    further = from_the_start(params).started[12:]
    assert [(job.training.seed, job.fraction, job.total_steps) for job in further] == [
        (1, 0.4, 4),
        (1, 0.8, 8),
        (2, 0.4, 4),
        (2, 0.8, 8),
    ]


def test_seeds_take_turns_over_rounds_of_one_mixture(params: Params) -> None:
    params = planned(params, seeds=[1, 2], runs=4, rounds={"first": 3, "runs": 1, "tolerance": 0.0})
    swarm = swarm_of(params)
    made = SwarmRound.model_construct(further=1)
    for number in (1, 2):
        weights = {"code": 0.1 * number, "law": 1 - 0.1 * number}
        decision = Decision.model_construct(made=made, further=[weights])
        swarm = swarm.after_round([]).going_on(decision, params, Manifest.read(paths.MANIFEST))
    further = [*swarm.started[6:], *swarm.waiting]
    assert [job.training.seed for job in further] == [1, 2]
    assert {job.name for job in further} <= further_names(params.mixture.swarm, 2)


def test_a_plan_of_the_runs_that_are_there_names_those_that_failed(params: Params) -> None:
    params = planned(params, runs=6)
    swarm = swarm_of(params)
    *there, last = [ended(job) for job in swarm.waiting]
    swarm = after_round(params, swarm, [*there, TrainingFailedError("ended with status 1")])
    found = write_weights.fn(params, swarm).planned
    assert found is not None and found.missing_runs == [last.name] and len(found.runs) == 5
    assert f"without {last.name}, which failed after all retries (missing_runs)" in " ".join(found.explanation)


def test_every_size_of_a_swarm_needs_runs_enough_for_a_law(params: Params) -> None:
    params = planned(params, fractions=[0.4, 0.8], runs=4)
    jobs = swarm_of(params).waiting
    failed = TrainingFailedError("ended with status 1")
    made = TrainResult.model_construct()
    outcomes = [made if job.fraction == 0.4 else failed for job in jobs]
    with pytest.raises(SwarmFailedError, match=r"at least 3 runs, not 0 of the fraction 0\.8"):
        finished_runs(jobs, outcomes)
    assert len(finished_runs(jobs, [failed, *[made] * 7])) == 7


def test_runs_of_the_model_do_not_stand_in_for_those_of_its_sibling(params: Params) -> None:
    swarm = {"runs": 4, "model": "models/small", "model_runs": 4}
    jobs = swarm_jobs(params, Manifest.read(paths.MANIFEST), planned(params, **swarm).mixture, "0" * 64, "1" * 64)
    failed = TrainingFailedError("ended with status 1")
    outcomes = [failed if job.model == "models/small" else TrainResult.model_construct() for job in jobs]
    with pytest.raises(SwarmFailedError, match="at least 3 runs, not 0"):
        finished_runs(jobs, outcomes)


def with_blogs(params: Params) -> Params:
    """The settings after a third domain was added."""
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    targets = Targets.read(paths.TARGETS)
    blogs = manifest.domains["law"].model_copy(update={"held_out": manifest.domains["code"].train})
    manifest.model_copy(update={"domains": manifest.domains | {"blogs": blogs}}).write(paths.MANIFEST)
    initial.model_copy(update={"losses": initial.losses | {"blogs": 4.2}}).write(paths.INITIAL)
    targets.model_copy(update={"domains": targets.domains | {"blogs": DomainTarget(target=3.0)}}).write(paths.TARGETS)
    return planned(params.model_copy(update={"domains": params.domains | {"blogs": params.domains["law"]}}), runs=6)


def plan_of(params: Params) -> Planned:
    found = write_weights.fn(params, from_the_start(params)).planned
    assert found is not None
    return found


def test_runs_of_before_a_domain_was_added_count_as_runs_without_it(
    params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    from_the_start(params)
    more = with_blogs(params)
    plan = plan_of(more)
    earlier = [run for run in plan.runs if run.use == "earlier"]
    assert len(earlier) == 7 and len(plan.runs) == 7 + 6
    assert {run.domain_weights["blogs"] for run in earlier} == {0.0}
    assert {frozenset(run.losses) for run in earlier} == {frozenset({"code", "law"})}
    assert plan.worth.share == pytest.approx(6 * 0.8, rel=0.05)
    said = " ".join(plan.explanation)
    assert "Finished runs of earlier settings (7) count as runs without blogs, at no cost" in said
    assert "They did not measure blogs" in said and "The 6 runs took" in said
    flags = {name: evidence["flags"] for name, evidence in plan.law["evidence"].items()}
    assert "too_few_runs" in flags["blogs"] and "too_few_runs" not in flags["code"]
    found = StartingWeights.read(paths.WEIGHTS)
    assert not {run.folder for run in earlier} & {run.folder for run in [*found.own_runs, *found.paid_runs]}

    training = params.training.model_copy(update={"token_budget": 3072})
    longer = plan_of(more.model_copy(update={"training": training}))
    assert {run.use for run in longer.runs} == {"law"}
    assert "finished runs without blogs, 7 of them, do not count" in caplog.text
    assert "training.token_budget: 2560 keeps the budget that they had" in caplog.text


def test_runs_of_other_text_or_settings_do_not_count(params: Params) -> None:
    from_the_start(params)
    more = with_blogs(params)
    optimizer = params.training.optimizer.model_copy(update={"learning_rate": 0.01})
    other = more.model_copy(update={"training": params.training.model_copy(update={"optimizer": optimizer})})
    assert {run.use for run in plan_of(other).runs} == {"law"}
    manifest = Manifest.read(paths.MANIFEST)
    changed = manifest.domains["law"].model_copy(update={"train": manifest.domains["code"].train})
    manifest.model_copy(update={"domains": manifest.domains | {"law": changed}}).write(paths.MANIFEST)
    assert {run.use for run in plan_of(more).runs} == {"law"}


def test_runs_of_the_model_itself_beside_a_siblings_swarm(params: Params) -> None:
    manifest = Manifest.read(paths.MANIFEST)
    swarm = {"runs": 6, "model": "models/small", "model_runs": 3, "fractions": [0.4, 0.8]}
    jobs = swarm_jobs(params, manifest, planned(params, **swarm).mixture, "0" * 64, "1" * 64)
    assert [job.name for job in jobs[12:]] == ["proxy-0_8-seed-1", "swarm-0_8-seed-1-01", "swarm-0_8-seed-1-02"]
    assert [job.initial_domain_weights for job in jobs[12:]] == [job.initial_domain_weights for job in jobs[6:9]]
    assert {(job.model, job.model_sha256) for job in jobs[:12]} == {("models/small", "1" * 64)}
    assert {(job.model, job.model_sha256) for job in jobs[12:]} == {(params.model.path, "0" * 64)}
