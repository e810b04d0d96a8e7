"""Weights planned from runs whose law is known: the optimum, what static training gains for the price, rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planned_samples import BUDGET, MAIN_FLOPS, swarm, swarm_run, targets

from velocitune_core.contracts import DomainTarget, Evidence, Law, LossPoint, Planned, SwarmRun, Targets
from velocitune_core.mixture_law.law import LawName
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.swarm_design import design_swarm
from velocitune_core.planned_weights import decide_round, plan_weights, rounded

STATIC = {"code": 0.6, "law": 0.3, "general": 0.1}

MIXTURES = [STATIC, *design_swarm(STATIC, runs=12, seed=1)]


@pytest.fixture(scope="module")
def runs() -> list[SwarmRun]:
    return swarm(STATIC)


def test_the_best_macro_average_of_equal_laws_is_equal_shares(runs: list[SwarmRun]) -> None:
    objective = Objective(initial_weights=STATIC)
    weights, planned = plan_weights(
        [*runs, runs[0]],  # one of them twice
        objective,
        targets(STATIC),
        law="transfer",
        bootstrap=2,
        main_flops=MAIN_FLOPS,
        token_budget=BUDGET,
    )
    assert list(weights) == list(STATIC) and sum(weights.values()) == pytest.approx(1, abs=1e-12)
    assert list(weights.values()) == pytest.approx([1 / 3] * 3, abs=0.03)
    gain = np.mean([(0.2 + w) ** -0.5 for w in STATIC.values()]) - (0.2 + 1 / 3) ** -0.5
    assert planned.worth.gain == pytest.approx(gain, abs=0.01)
    assert planned.worth.share == pytest.approx(13 * 0.25)
    assert planned.worth.static_gain == pytest.approx(1 - (1 + planned.worth.share) ** -0.3)
    losses = planned.plan["mixtures"]["static"]["losses"]
    assert [losses[name]["value"] for name in STATIC] == pytest.approx([3.0] * 3)  # the targets, at the full budget
    assert planned.fraction == 0.25 and len(planned.runs) == 13
    said = " ".join(planned.explanation)
    assert "No mixture that the runs cover" in said and "took 3.25 times the operations of the main run" in said


def test_differences_that_change_with_the_size_of_the_runs_widen_the_intervals(runs: list[SwarmRun]) -> None:
    def interval(*others: SwarmRun) -> float:
        settings: dict[str, Any] = {"law": "transfer", "bootstrap": 2, "main_flops": MAIN_FLOPS, "token_budget": BUDGET}
        found = plan_weights([*runs, *others], Objective(initial_weights=STATIC), targets(STATIC), **settings)[1]
        assert found.fraction == 0.25
        code = found.plan["mixtures"]["recommended"]["losses"]["code"]
        return code["high"] - code["low"]

    half = [swarm_run(number, each.domain_weights, 0.1) for number, each in enumerate(runs)]  # weights do half
    half = [each.model_copy(update={"losses": {n: x / 2 for n, x in each.losses.items()}}) for each in half]
    assert interval(*half) > 2 * interval()


def test_the_price_of_compared_plans_is_judged_by_the_same_laws(runs: list[SwarmRun]) -> None:
    settings: dict[str, Any] = {"law": "transfer", "bootstrap": 0, "main_flops": MAIN_FLOPS, "token_budget": BUDGET}
    shared = targets(STATIC)
    law = Law(E=0.0, B=3 * BUDGET**0.1, beta=0.1)  # of one proxy
    evidence = Evidence(tokens=[1], losses=[3.0], law=law, interval=None, leave_largest_out_error=None)
    own = Targets(domains={name: DomainTarget(target=3.0, evidence=evidence) for name in STATIC})
    objective = Objective(initial_weights=STATIC)
    gains = [
        plan_weights(runs, objective, made_by, **settings, priced_by=priced_by)[1].worth.static_gain
        for made_by, priced_by in ((shared, None), (own, None), (own, shared))
    ]
    assert gains[2] == gains[0] != gains[1]


def test_the_order_of_the_runs_changes_no_bit_of_a_plan() -> None:
    random = np.random.default_rng(0)
    made = [
        each.model_copy(update={"losses": {n: x + random.normal(0, 0.01) for n, x in each.losses.items()}})
        for fraction in (0.1, 0.25)
        for each in (swarm_run(number, weights, fraction) for number, weights in enumerate(MIXTURES))
    ]
    effects = [each.model_copy(update={"use": "effect"}) for each in made[-4:]]
    settings: dict[str, Any] = {"law": "transfer", "bootstrap": 4, "main_flops": MAIN_FLOPS, "token_budget": BUDGET}
    found = [
        plan_weights(order, Objective(initial_weights=STATIC), targets(STATIC), **settings, model="models/sibling")
        for order in ([*made, *effects], [*effects[::-1], *made[::-1]])
    ]
    (weights, planned), (again, other) = found
    assert weights == again and planned.plan == other.plan


def test_why_there_is_no_comparison_with_static_training_is_said(runs: list[SwarmRun]) -> None:
    settings: dict[str, Any] = {"law": "transfer", "bootstrap": 0, "main_flops": MAIN_FLOPS, "token_budget": BUDGET}
    objective = Objective(average={"qa": 1.0, "code": 1.0}, initial_weights=STATIC)
    found = plan_weights(with_questions(runs), objective, targets(STATIC), **settings)[1]
    assert found.worth.static_gain is None and found.worth.without_law == ["qa"]
    assert "the average contains qa, of which the targets have no law over tokens" in " ".join(found.explanation)


def test_weights_are_rounded_and_sum_to_one() -> None:
    found = rounded({"a": 0.333333, "b": 0.6666669, "c": -1e-12})
    assert found == {"a": 0.3333, "b": 0.6667, "c": 0.0}
    assert sum(rounded(dict.fromkeys("abcdefg", 1 / 7)).values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("law", "guards", "said"),
    [("bimix", {"code": 0.0}, True), ("bimix", None, False), ("transfer", {"code": 0.0}, False)],
)
def test_a_law_of_own_domains_says_that_it_cannot_see_a_guard_broken(
    runs: list[SwarmRun], law: LawName, guards: dict[str, float] | None, said: bool
) -> None:
    objective = Objective(initial_weights=STATIC, worse_than_static=guards)
    settings: dict[str, Any] = {"bootstrap": 2, "main_flops": MAIN_FLOPS, "token_budget": BUDGET}
    planned = plan_weights(runs, objective, targets(STATIC), law=law, **settings)[1]
    text = " ".join(planned.explanation)
    assert ("so the guard of code can be broken without showing in it" in text) == said
    # uniform weights are best without the guard, and break it: a small bound is then no reason against the plan
    assert ("nats better than static, of the" in text) == (guards is not None)


def test_differences_of_a_siblings_swarm_are_said_to_be_assumed_or_measured(runs: list[SwarmRun]) -> None:
    def plan(*others: SwarmRun) -> Planned:
        settings: dict[str, Any] = {"law": "transfer", "bootstrap": 4, "main_flops": MAIN_FLOPS, "token_budget": BUDGET}
        objective = Objective(initial_weights=STATIC)
        return plan_weights([*runs, *others], objective, targets(STATIC), **settings, model="small")[1]

    assumed = plan()
    assert "that the model's differences are as large as the sibling's is assumed" in " ".join(assumed.explanation)
    twice = {"use": "effect", "losses": {}}
    own = [run.model_copy(update=twice | {"losses": {n: 2 * x for n, x in run.losses.items()}}) for run in runs[:4]]
    measured = plan(*own)
    assert "By 4 runs the model's differences are 2.0" in " ".join(measured.explanation)
    assert measured.worth.gain == pytest.approx(2 * assumed.worth.gain, rel=0.05)
    assert measured.worth.share == pytest.approx((len(runs) + 4) * 0.25)


def with_questions(runs: list[SwarmRun], level: float = 0.0) -> list[SwarmRun]:
    """The runs with the set `qa`, which has no training text and the losses of `general`, all of them raised."""
    found = []
    for run in runs:
        losses = run.losses | {"qa": run.losses["general"]}
        found.append(run.model_copy(update={"losses": {name: loss + level for name, loss in losses.items()}}))
    return found


def test_forgetting_of_a_set_that_is_only_measured_is_that_of_the_model_not_of_the_sibling(
    runs: list[SwarmRun],
) -> None:
    """The sibling is worse by 0.6 nats; `qa` behaves as `general` does, so both are forgotten alike."""
    reached = LossPoint(step=8, tokens=BUDGET // 2, losses={"qa": 3.0})
    known = targets(STATIC).model_copy(update={"measured": reached})
    initial = {"qa": 2.7, "general": 2.7}
    objective = Objective(initial_weights=STATIC, forgetting={"qa": 0.4, "general": 0.4}, initial_losses=initial)
    settings: dict[str, Any] = {"law": "transfer", "bootstrap": 2, "main_flops": MAIN_FLOPS, "token_budget": BUDGET}
    found = plan_weights(with_questions(runs, 0.6), objective, known, **settings, model="small")[1]
    qa, general = (limit["reached"] for limit in found.plan["limits"] if limit["kind"] == "forgetting")
    assert qa == pytest.approx(general, abs=1e-3) and qa < 0.4
    level = "qa has no target: predicted losses and forgetting are at the level of the model's largest static proxy"
    assert f"{level} (500,000 tokens)" in " ".join(found.explanation)

    with pytest.raises(ObjectiveError, match=r"forgetting of qa: no static run of the model measured .* set mixture\."):
        plan_weights(with_questions(runs, 0.6), objective, targets(STATIC), **settings, model="small")
    own = plan_weights(with_questions(runs), replace(objective, forgetting=None), targets(STATIC), **settings)[1]
    assert "at the level of the swarm's runs" in " ".join(own.explanation)  # which are the model's own


def test_a_swarm_goes_on_until_the_best_is_known_well_enough_and_all_its_mixtures_differ() -> None:
    """The law of equal domains, with noise: the optimum is near equal shares."""
    random = np.random.default_rng(0)

    def run(number: int, weights: dict[str, float]) -> SwarmRun:
        made = swarm_run(number, weights)
        return made.model_copy(update={"losses": {n: x + random.normal(0, 0.01) for n, x in made.losses.items()}})

    tried = [STATIC, *design_swarm(STATIC, runs=5, seed=1)]
    made, regrets = [run(number, weights) for number, weights in enumerate(tried)], []
    settings: dict[str, Any] = {"law": "transfer", "bootstrap": 20, "min_share": 0.01, "main_flops": MAIN_FLOPS}
    while len(tried) < 30:
        decision = decide_round(
            made,
            Objective(initial_weights=STATIC),
            targets(STATIC),
            further=6,
            tolerance=0.004,
            tried=tried,
            **settings,
        )
        regrets.append(decision.made.regret)
        assert (decision.made.runs, decision.made.further) == (len(made), len(decision.further))
        if decision.made.settled:
            break
        made += [run(len(made) + number, weights) for number, weights in enumerate(decision.further)]
        tried += decision.further
    assert decision.made.settled and 0 < regrets[-1] <= 0.004 < regrets[0]
    assert decision.further == [] and decision.made.expected == 0
    assert len({tuple(each.values()) for each in tried}) == len(tried)
    assert decision.made.share == pytest.approx(0.25 * len(tried))
