"""Weights planned from runs whose law is known: each set learns from its own domain alone, L = 2 + (0.2 + w)^−0.5."""

from __future__ import annotations

from collections.abc import Mapping

from velocitune_core.contracts import DomainTarget, Evidence, Law, StartingWeights, SwarmRun, Targets
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.swarm_design import design_swarm
from velocitune_core.planned_weights import plan_weights

BUDGET, MAIN_FLOPS = 1_000_000, 1e12


def swarm_run(number: int, weights: dict[str, float], fraction: float = 0.25) -> SwarmRun:
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


def swarm(static: Mapping[str, float]) -> list[SwarmRun]:
    """2(K + 3) runs for K domains, the first of them static."""
    drawn = design_swarm(static, runs=2 * (len(static) + 3) - 1, seed=1)
    return [swarm_run(number, weights) for number, weights in enumerate([dict(static), *drawn])]


def targets(static: Mapping[str, float]) -> Targets:
    """3 nats everywhere, by laws with β = 0.3."""
    law = Law(E=2.0, B=BUDGET**0.3, beta=0.3)
    evidence = Evidence(tokens=[1], losses=[3.0], law=law, interval=None, leave_largest_out_error=None)
    return Targets(domains={name: DomainTarget(target=3.0, evidence=evidence) for name in static})


def planned(static: Mapping[str, float]) -> StartingWeights:
    weights, evidence = plan_weights(
        swarm(static),
        Objective(initial_weights=static),
        targets(static),
        law="transfer",
        bootstrap=2,
        main_flops=MAIN_FLOPS,
        token_budget=BUDGET,
    )
    return StartingWeights(strategy="planned", found_by="planned", domain_weights=weights, planned=evidence)
