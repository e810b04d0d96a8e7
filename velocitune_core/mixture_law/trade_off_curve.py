"""The trade-off curve: what the average can be, as one guard is loosened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from velocitune_core.mixture_law.at_hand import AtHand
from velocitune_core.mixture_law.feasibility import feasible_start
from velocitune_core.mixture_law.guarded_problem import Law, Problem
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.optimise import starts
from velocitune_core.mixture_law.support import Support, Table

SETS, FORGETTING = "worse_than_static", "forgetting"


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


def _with(objective: Objective, guard: str, limit: float) -> Objective:
    if guard == SETS:
        return replace(objective, worse_than_static=limit)
    if guard == FORGETTING:
        return replace(objective, forgetting=limit)
    return replace(objective, averages_worse_than_static={**objective.averages_worse_than_static, guard: limit})
