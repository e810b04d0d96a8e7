"""Weights planned from runs whose law is known: each set learns from its own domain alone, L = 2 + (0.2 + w)^−0.5."""

from __future__ import annotations

from collections.abc import Mapping

from velocitune_core.contracts import DomainTarget, Evidence, Law, StartingWeights, SwarmRound, SwarmRun, Targets
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.swarm_design import design_swarm
from velocitune_core.planned_weights import plan_weights
from velocitune_core.report.fitted_plan import FittedPlan

BUDGET, MAIN_FLOPS = 1_000_000, 1e12


def swarm_round(
    runs: int, share: float, predicted: float, regret: float, spread: float, *, further: int, expected: float
) -> SwarmRound:
    """A round, settled if no further runs are wanted."""
    return SwarmRound(
        runs=runs,
        share=share,
        predicted=predicted,
        regret=regret,
        spread=spread,
        tolerance=0.003,
        settled=not further,
        further=further,
        expected=expected,
    )


ROUNDS = [
    swarm_round(11, 0.5, -0.02, 0.02, 0.1, further=4, expected=0.006),
    swarm_round(15, 0.7, -0.025, 0.002, 0.05, further=0, expected=0.0),
]
BOUGHT = "regret −0.0180, prediction −0.0050, for 0.20"  # by the second of them


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


def fitted(static: Mapping[str, float], *, measured: bool = False, bootstrap: int = 8, **wanted: object) -> FittedPlan:
    """A plan with its law; `measured` adds the set "target", which learns from the first domain and has no text."""
    runs, first = swarm(static), next(iter(static))
    if measured:
        runs = [run.model_copy(update={"losses": run.losses | {"target": run.losses[first] - 0.5}}) for run in runs]
    objective = Objective(initial_weights=static, **wanted)  # type: ignore[arg-type]
    prices = {"main_flops": MAIN_FLOPS, "token_budget": BUDGET}
    _, found = plan_weights(runs, objective, targets(static), law="transfer", bootstrap=bootstrap, **prices)  # type: ignore[arg-type]
    return FittedPlan.of(found, objective, targets(static), bootstrap)
