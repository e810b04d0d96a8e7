"""Whether a swarm that is trained in rounds goes on, and under which weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from velocitune_core.contracts import SwarmRound, SwarmRun, Targets
from velocitune_core.contracts.contract import Part
from velocitune_core.mixture_law.law import LawName
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.optimise import optimise_mixture
from velocitune_core.mixture_law.rounds import next_round
from velocitune_core.planned_weights.swarm_law import full_law, largest_law
from velocitune_core.planned_weights.worth import paid_share


class Decision(Part):
    """What a round of a swarm brought, and the weights of the runs of the next one."""

    made: SwarmRound
    further: list[dict[str, float]]  # the most telling first; empty if the swarm ends


def decide_round(
    runs: Sequence[SwarmRun],
    objective: Objective,
    targets: Targets,
    *,
    law: LawName,
    bootstrap: int,
    further: int,
    tolerance: float,
    min_share: float,
    tried: Sequence[Mapping[str, float]],
    main_flops: float,
    sibling: bool = False,
) -> Decision:
    """Return what the runs so far say, and the weights of further runs unless the optimum is known well enough.

    Regret does not contain how differences change with the size of the runs, which more of them would not lower.

    Args:
        runs: of all rounds so far.
        objective: with initial weights.
        targets: what static training reaches.
        law, bootstrap: form of the law, and resamples of the runs.
        further: how many mixtures the next round has at most.
        tolerance: nats; the swarm ends when the regret of the recommended weights is at most this.
        min_share: least weight of every domain in further runs.
        tried: weights that runs were to train under, also of those that failed.
        main_flops: operations of the main run.
        sibling: whether the swarm trains a sibling of the model.

    Raises MixtureLawError for runs that no law can be fitted to, and ObjectiveError for guards that no mixture keeps.
    """
    start = objective.initial_weights or {}
    fitted = full_law(largest_law(runs, law, bootstrap), runs, start, targets, sibling=sibling, drift=False)
    plan = optimise_mixture(fitted, objective)
    found = next_round(fitted, plan, objective, runs=further, tolerance=tolerance, min_share=min_share, tried=tried)
    made = SwarmRound(
        runs=sum(run.use != "earlier" for run in runs),
        share=paid_share(runs, main_flops),
        predicted=plan.mixtures["recommended"].differences[plan.average].value,
        regret=found.regret,
        spread=found.spread,
        tolerance=tolerance,
        settled=found.settled,
        further=len(found.weights),
        expected=sum(found.gains),
    )
    return Decision(made=made, further=found.weights)
