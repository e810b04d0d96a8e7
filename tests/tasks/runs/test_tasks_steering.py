"""Plan, then steer: the course of a plan, the run that follows it, and settings that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planned_samples import planned
from tiny import job as tiny_job

from tasks.runs.steering import HOW, main_job, with_course
from tasks.workspace.planned_checks import planned_problems
from velocitune_core.config import StrategyConfig, parse_params
from velocitune_core.contracts import ContractError, InitialLosses, LossPoint, ProxyResult
from velocitune_core.strategies import make_strategy
from velocitune_core.train.job import TrainJob

STATIC = {"code": 0.6, "general": 0.4}
INITIAL = InitialLosses(precision="float32", losses={"code": 5.0, "general": 4.0}, tokens={}, seconds=1.0)


def proxy(fraction: float, *losses: tuple[float, float]) -> ProxyResult:
    """Measurements of code and general, evenly along a proxy."""
    tokens = round(fraction * 1000)
    points = [
        LossPoint(step=number, tokens=tokens * number // len(losses), losses={"code": code, "general": general})
        for number, (code, general) in enumerate(losses, 1)
    ]
    common = {"name": f"proxy-{fraction}", "fraction": fraction, "seed": 1, "precision": "float32", "steps": 4}
    return ProxyResult.model_validate({**common, "tokens": tokens, "points": points, "seconds": 1.0})


SHORT = proxy(0.2, (4.9, 4.0), (4.8, 3.9))
LONG = proxy(0.6, (3.5, 4.6), (3.2, 4.5), (3.1, 4.3), (3.0, 4.2))  # code closes its gap of 2; general is forgotten


def test_the_course_is_that_of_the_largest_proxy_as_shares_of_its_own_gaps() -> None:
    plan = planned(STATIC)
    found = with_course(plan, {"steer": True}, INITIAL, [LONG, SHORT])
    assert found.steering is not None and plan.planned is not None and found.planned is not None
    assert found.steering.course == {
        "code": [(0.0, 1.0), (0.25, 0.25), (0.5, 0.1), (0.75, 0.05), (1.0, 0.0)],
        "general": [(0.0, 1.0), (1.0, 0.0)],  # no gap was closed
    }
    predicted = plan.planned.plan["mixtures"]["recommended"]["losses"]  # static targets and predicted differences
    assert found.steering.target_loss == {name: round(predicted[name]["value"], 4) for name in STATIC}
    assert found.steering.target_loss != {"code": 3.0, "general": 3.0}
    assert (found.domain_weights, found.held, plan.held) == (plan.domain_weights, False, True)
    assert found.planned.explanation == [*plan.planned.explanation, HOW]
    assert with_course(plan, {"steer": False}, INITIAL, []) == plan == with_course(plan, {}, INITIAL, [])


def test_the_main_run_starts_from_the_plan_and_is_steered(tiny_inputs: Path) -> None:
    job = TrainJob.model_validate(tiny_job(tiny_inputs, Path(), total_steps=6), strict=False)
    strategy = StrategyConfig(name="planned", options={"steer": {"step_size": 1.5}})
    plan = planned(STATIC)
    found = with_course(plan, strategy.options, INITIAL, [LONG])
    run = main_job(job, strategy, found, INITIAL, {})
    assert run.initial_domain_weights == plan.domain_weights
    assert (run.strategy.name, run.strategy.search) == ("planned_course", None)
    assert run.strategy.options["step_size"] == 1.5 and run.strategy.options["initial_loss"] == INITIAL.losses
    again = TrainJob.model_validate_json(run.model_dump_json(), strict=False)
    assert again.fingerprint() == run.fingerprint()
    steered = make_strategy(again.strategy.name, initial_weights=again.initial_domain_weights, **again.strategy.options)
    assert dict(zip(steered.domains, steered.weights, strict=True)) == pytest.approx(plan.domain_weights)
    with pytest.raises(ContractError, match="has no course to steer along"):
        main_job(job, strategy, plan, INITIAL, {})
    constant = main_job(job, StrategyConfig(name="planned"), plan, INITIAL, {})
    assert (constant.strategy.name, constant.initial_domain_weights) == ("static", plan.domain_weights)


@pytest.mark.parametrize(
    ("steer", "problem"),
    [
        ("yes", "strategy.options.steer is 'yes'; set true, or options of planned_course"),
        ({"course": {}}, "strategy.options.steer names ['course'], which the plan gives"),
        (
            {"step": 1.0},
            "steer: strategy: strategy 'planned_course' has no option step (did you mean step_size?)",
        ),
        ({"gap_policy": "retain"}, "'retain' has no planned course"),
    ],
)
def test_steering_that_cannot_be_is_refused_before_any_run(settings: dict[str, Any], steer: Any, problem: str) -> None:
    params = parse_params(settings)
    strategy = StrategyConfig(name="planned", options={"steer": steer})
    (found,) = planned_problems(params.model_copy(update={"strategy": strategy}))
    assert problem in found
    held = StrategyConfig(name="planned", options={"steer": {"step_size": 1.0}})
    assert planned_problems(params.model_copy(update={"strategy": held})) == []
