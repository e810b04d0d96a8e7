"""Weights planned from runs whose law is known: the optimum, what static training gains for the price, rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planned_samples import BUDGET, MAIN_FLOPS, swarm, swarm_run, targets

from velocitune_core.contracts import SwarmRun
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.planned_weights import plan_weights, rounded

STATIC = {"code": 0.6, "law": 0.3, "general": 0.1}


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


def test_weights_are_rounded_and_sum_to_one() -> None:
    found = rounded({"a": 0.333333, "b": 0.6666669, "c": -1e-12})
    assert found == {"a": 0.3333, "b": 0.6667, "c": 0.0}
    assert sum(rounded(dict.fromkeys("abcdefg", 1 / 7)).values()) == pytest.approx(1, abs=1e-12)
