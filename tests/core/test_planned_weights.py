"""Weights planned from runs whose law is known: the optimum, what static training gains for the price, rounding."""

from __future__ import annotations

import numpy as np
import pytest

from velocitune_core.contracts import DomainTarget, Evidence, Law, SwarmRun, Targets
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.swarm_design import design_swarm
from velocitune_core.planned_weights import plan_weights, rounded

STATIC = {"code": 0.6, "law": 0.3, "general": 0.1}
BUDGET, MAIN_FLOPS = 1_000_000, 1e12


def run(number: int, weights: dict[str, float], fraction: float = 0.25) -> SwarmRun:
    """Each set learns from its own domain alone: L = 2 + (0.2 + w)^−0.5."""
    return SwarmRun(
        name=f"swarm-{number}",
        folder=f"swarm-{number}-0",
        tokens=int(BUDGET * fraction),
        flops=MAIN_FLOPS * fraction,
        seconds=1.0,
        fraction=fraction,
        seed=1,
        domain_weights=weights,
        losses={name: 2 + (0.2 + weight) ** -0.5 for name, weight in weights.items()},
    )


@pytest.fixture(scope="module")
def runs() -> list[SwarmRun]:
    drawn = design_swarm(STATIC, runs=11, seed=1)
    return [run(number, weights) for number, weights in enumerate([STATIC, *drawn])]


def targets(beta: float) -> Targets:
    law = Law(E=2.0, B=1.0 * BUDGET**beta, beta=beta)
    evidence = Evidence(tokens=[1], losses=[3.0], law=law, interval=None, leave_largest_out_error=None)
    return Targets(domains={name: DomainTarget(target=3.0, evidence=evidence) for name in STATIC})


def test_the_best_macro_average_of_equal_laws_is_equal_shares(runs: list[SwarmRun]) -> None:
    objective = Objective(initial_weights=STATIC)
    other_size = run(99, {"code": 0.9, "law": 0.05, "general": 0.05}, fraction=0.1)  # tells nothing of a quarter
    weights, planned = plan_weights(
        [*runs, runs[0], other_size],  # one of them twice
        objective,
        targets(0.3),
        law="transfer",
        bootstrap=2,
        main_flops=MAIN_FLOPS,
        token_budget=BUDGET,
    )
    assert list(weights) == list(STATIC) and sum(weights.values()) == pytest.approx(1, abs=1e-12)
    assert list(weights.values()) == pytest.approx([1 / 3] * 3, abs=0.03)
    gain = np.mean([(0.2 + w) ** -0.5 for w in STATIC.values()]) - (0.2 + 1 / 3) ** -0.5
    assert planned.worth.gain == pytest.approx(gain, abs=0.01)
    assert planned.worth.share == pytest.approx(13 * 0.25 + 0.1)
    assert planned.worth.static_gain == pytest.approx(1 - (1 + planned.worth.share) ** -0.3)
    assert planned.fraction == 0.25 and len(planned.runs) == 14
    said = " ".join(planned.explanation)
    assert "No mixture that the runs cover" in said and "took 3.35 of the operations of the main run" in said


def test_weights_are_rounded_and_sum_to_one() -> None:
    found = rounded({"a": 0.333333, "b": 0.6666669, "c": -1e-12})
    assert found == {"a": 0.3333, "b": 0.6667, "c": 0.0}
    assert sum(rounded(dict.fromkeys("abcdefg", 1 / 7)).values()) == pytest.approx(1, abs=1e-12)
