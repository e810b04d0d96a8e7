"""The trade-off curve: what the average can be, as one guard is loosened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from velocitune_core.mixture_law.at_hand import AtHand
from velocitune_core.mixture_law.feasibility import feasible_start
from velocitune_core.mixture_law.guarded_problem import Law, Problem
from velocitune_core.mixture_law.mixture_plan import MixturePrediction
from velocitune_core.mixture_law.objective import BY_SIZE, MACRO, Objective, ObjectiveError
from velocitune_core.mixture_law.optimise import starts
from velocitune_core.mixture_law.support import Support, Table

SETS, FORGETTING = "worse_than_static", "forgetting"
CURVE_POINTS = 31


@dataclass(frozen=True)
class TradeOffPoint:
    """The best mixture at one limit of a guard. Nats per token; differences are to static training."""

    limit: float
    weights: dict[str, float]
    average: float
    differences: dict[str, float]  # of every average, by name; empty without initial weights
    price: float  # nats of the average per nat of the guard

    def as_dict(self) -> dict[str, Any]:
        """Return the point as plain dictionaries and numbers, for JSON."""
        return asdict(self)


def trade_off(
    law: Law, objective: Objective, guard: str, limits: Sequence[float], *, support: Support | Table | None = None
) -> list[TradeOffPoint]:
    """Return the best mixture for each limit of a guard; limits that no mixture keeps are left out.

    Args:
        law, objective, support: as for `optimise_mixture`; the objective's other guards stay.
        guard: "worse_than_static" (of all sets), "forgetting" (of the retained sets), or an average: how much it may be
            worse than under static training.
        limits: of the guard, nats.

    Raises ObjectiveError for an unknown guard, and for an objective that contradicts itself.
    """
    points, near = [], None
    for limit in sorted(limits, reverse=True):
        problem = Problem.of(law, _with(objective, guard, float(limit)), support)
        terms = problem.terms
        at_hand = AtHand.of(problem, law.runs.weights)
        try:
            begin = starts(problem, feasible_start(problem), law.convex)
        except ObjectiveError:
            if at_hand.best(problem) is None:
                break  # a tighter limit is not kept either
            begin = []
        before = [near] if near is not None and begin else []
        found = at_hand.or_better(problem, [*before, *begin], convex=law.convex)
        near = found.weights
        losses, static = law.losses(near), None if terms.static is None else law.losses(terms.static)
        about = guard if guard not in {SETS, FORGETTING} else None
        of_guard = [g.kind == "average" and g.about == about if about else g.kind != "average" for g in terms.guards]
        points.append(
            TradeOffPoint(
                limit=float(limit),
                weights=dict(zip(law.domains, map(float, near), strict=True)),
                average=found.value,
                differences={}
                if static is None
                else {k: float(v @ (losses - static)) for k, v in terms.averages.items()},
                price=float(found.guard_prices[np.array(of_guard, dtype=bool)].sum()),
            )
        )
    return points[::-1]


def curves_of(
    law: Law,
    objective: Objective,
    mixtures: Mapping[str, MixturePrediction],
    baseline: str,
    *,
    support: Support | Table | None = None,
) -> dict[str, list[TradeOffPoint]]:
    """Return curves by the name of their guard: of another average, of all sets, and of forgetting if it is guarded.

    Guards that the objective has come first. Each curve goes from below what the optimum without guards reaches to what
    the baseline does. The average is the first that is guarded; without one it is by size, or macro if by size is
    minimised. A guard with a limit of its own for each set has no curve.

    Args:
        law, objective, support: as for `optimise_mixture`.
        mixtures: of the plan.
        baseline: of the plan; without initial weights, there are no curves.
    """
    if objective.initial_weights is None:
        return {}
    seen = [mixtures[name] for name in ("without guards", "recommended", baseline)]
    reached: dict[str, list[float]] = {}
    others = [*objective.averages_worse_than_static, BY_SIZE, MACRO, *objective.averages]
    if name := next((each for each in others if each != objective.average_name), ""):
        reached[name] = [each.differences[name].value for each in seen]
    if not isinstance(objective.worse_than_static, Mapping):
        reached[SETS] = [max(one.value for one in each.set_differences.values()) for each in seen]
    if objective.forgetting is not None and not isinstance(objective.forgetting, Mapping):
        losses = [{name: one.value for name, one in each.losses.items()} for each in seen]
        reached[FORGETTING] = [forgotten(objective, each) for each in losses]
    guarded = {*objective.averages_worse_than_static, FORGETTING}
    guarded |= {SETS} if objective.worse_than_static is not None else set()
    curves = {}
    for guard, values in sorted(reached.items(), key=lambda each: each[0] not in guarded):
        low, high = min(values), max(values)
        limits = np.linspace(low - max((high - low) / 2, 0.02), high + 0.002, CURVE_POINTS)
        curves[guard] = trade_off(law, objective, guard, [float(each) for each in limits], support=support)
    return curves


def place_of(
    objective: Objective, guard: str, losses: Mapping[str, float], static: Mapping[str, float], domains: Sequence[str]
) -> tuple[float, float]:
    """Return where a run lies in the plane of a curve: what its guard limits, and the average's difference to static.

    Args:
        objective: with initial weights.
        guard: as for `trade_off`.
        losses, static: of the run and of static training by set, nats per token.
        domains: that are trained on.
    """
    difference = {name: loss - static[name] for name, loss in losses.items()}

    def average(name: str) -> float:
        shares = objective.average_shares(name, domains, list(losses))
        return sum(share * difference[each] for each, share in shares.items())

    if guard == FORGETTING:
        return forgotten(objective, losses), average(objective.average_name)
    x = max(difference.values()) if guard == SETS else average(guard)
    return x, average(objective.average_name)


def forgotten(objective: Objective, losses: Mapping[str, float]) -> float:
    """Return by how many nats the retained set that is worst off is worse than under the initial model."""
    return max(losses[name] - objective.initial_losses[name] for name in objective.retained)


def _with(objective: Objective, guard: str, limit: float) -> Objective:
    if guard == SETS:
        return replace(objective, worse_than_static=limit)
    if guard == FORGETTING:
        return replace(objective, forgetting=limit)
    return replace(objective, averages_worse_than_static={**objective.averages_worse_than_static, guard: limit})
