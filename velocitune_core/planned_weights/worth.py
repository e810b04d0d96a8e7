"""What a plan gains, and what static training would gain from the operations of its runs."""

from __future__ import annotations

from collections.abc import Sequence

from velocitune_core.contracts import Law, SwarmRun, Targets, Worth
from velocitune_core.mixture_law.break_even import pays_from
from velocitune_core.mixture_law.law import MixtureLaw
from velocitune_core.mixture_law.mixture_plan import MixturePlan
from velocitune_core.mixture_law.objective import Objective


def paid_share(runs: Sequence[SwarmRun], main_flops: float) -> float:
    """Return the operations of the runs of a swarm as a share of the main run's; earlier runs cost nothing now."""
    return sum(run.flops for run in runs if run.use != "earlier") / main_flops


def worth_of(
    plan: MixturePlan,
    law: MixtureLaw,
    objective: Objective,
    runs: Sequence[SwarmRun],
    targets: Targets,
    *,
    main_flops: float,
    token_budget: int,
) -> Worth:
    """Return what a plan gains beside what static training would gain from the operations of its swarm.

    Static training is continued by the scaling laws behind the targets, whose tokens are those of the whole mixture.
    """
    gain = -plan.mixtures["recommended"].differences[plan.average].value
    share = paid_share(runs, main_flops)
    shares = objective.average_shares(plan.average, law.domains, law.sets)
    laws = _laws(targets)
    if unknown := sorted(name for name, weight in shares.items() if weight and name not in laws):
        return Worth(gain=gain, share=share, static_gain=None, pays_from=None, without_law=unknown)
    extra = share * token_budget

    def average(tokens: float) -> float:
        return sum(weight * float(laws[name].predict(tokens)) for name, weight in shares.items() if weight)

    static_gain = average(token_budget) - average(token_budget + extra)
    return Worth(gain=gain, share=share, static_gain=static_gain, pays_from=pays_from(average, gain, extra))


def _laws(targets: Targets) -> dict[str, Law]:
    return {name: each.evidence.law for name, each in targets.domains.items() if each.evidence is not None}
