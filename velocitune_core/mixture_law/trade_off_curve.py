"""The trade-off curve: what the average can be, as one guard is loosened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from velocitune_core.mixture_law.at_hand import AtHand
from velocitune_core.mixture_law.feasibility import feasible_start
from velocitune_core.mixture_law.guarded_problem import Law, Problem
from velocitune_core.mixture_law.mixture_plan import MixturePrediction
from velocitune_core.mixture_law.named_guard import Losses, NamedGuard, guards_of
from velocitune_core.mixture_law.objective import BY_SIZE, MACRO, Objective, ObjectiveError
from velocitune_core.mixture_law.optimise import starts
from velocitune_core.mixture_law.support import Support, Table

CURVE_POINTS = 31
NAMED_CURVES = 3  # of the sets that have a limit of their own, those with the least room


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
        guard: "worse_than_static" (of all sets), "forgetting" (of the retained sets), of one set
            "worse_than_static.<set>" or "forgetting.<set>", or an average: how much it may be worse than under static
            training.
        limits: of the guard, nats.

    Raises ObjectiveError for an unknown guard, and for an objective that contradicts itself.
    """
    loosened, points, near = NamedGuard.of(guard), [], None
    for limit in sorted(limits, reverse=True):
        problem = Problem.of(law, loosened.with_limit(objective, float(limit), law.sets), support)
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
        of_guard = [each.kind == loosened.kind and loosened.about in ("", each.about) for each in terms.guards]
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
    """Return curves by the name of their guard: of another average, of sets, and of forgetting if it is guarded.

    Guards that the objective has come first. Each curve goes from below what the optimum without guards reaches to what
    the baseline does. The average is the first that is guarded; without one it is by size, or macro if by size is
    minimised. Sets share a curve unless the objective has limits by set: then each has its own, at most three of them,
    those that have the least room in the recommended mixture; the same holds for forgetting.

    Args:
        law, objective, support: as for `optimise_mixture`.
        mixtures: of the plan.
        baseline: of the plan; without initial weights, there are no curves.
    """
    if objective.initial_weights is None:
        return {}
    predicted = [mixtures[name].losses for name in (baseline, "recommended", "without guards")]
    static, recommended, free = ({name: one.value for name, one in losses.items()} for losses in predicted)

    def reached(guard: NamedGuard, losses: Losses = recommended) -> float:
        return guard.reached(objective, losses, static, law.domains)

    curves = {}
    for guard in _curved(objective, reached):
        values = [reached(guard, losses) for losses in (free, recommended, static)]
        low, high = min(values), max(values)
        limits = np.linspace(low - max((high - low) / 2, 0.02), high + 0.002, CURVE_POINTS)
        curves[guard.name] = trade_off(law, objective, guard.name, [float(each) for each in limits], support=support)
    return curves


def _curved(objective: Objective, reached: Callable[[NamedGuard], float]) -> list[NamedGuard]:
    """Return the guards that have a curve, those of the objective first; `reached` is by the recommended mixture."""
    limits, found = guards_of(objective), []
    others = [*objective.averages_worse_than_static, BY_SIZE, MACRO, *objective.averages]
    if name := next((each for each in others if each != objective.average_name), ""):
        found.append(NamedGuard("average", name))
    if not isinstance(objective.worse_than_static, Mapping):
        found.append(NamedGuard("set"))
    of_sets = [guard for guard in limits if guard.kind != "average"]
    by_room = sorted(of_sets, key=lambda guard: limits[guard] - reached(guard))
    for kind in ("set", "forgetting"):
        found += [guard for guard in by_room if guard.kind == kind and guard not in found][:NAMED_CURVES]
    return sorted(found, key=lambda guard: guard not in limits)


def place_of(
    objective: Objective, guard: str, losses: Losses, static: Losses, domains: Sequence[str]
) -> tuple[float, float]:
    """Return where a run lies in the plane of a curve: what its guard limits, and the average's difference to static.

    Args:
        objective: with initial weights.
        guard: as for `trade_off`.
        losses, static: of the run and of static training by set, nats per token.
        domains: that are trained on.
    """
    average = NamedGuard("average", objective.average_name)
    across, up = (each.reached(objective, losses, static, domains) for each in (NamedGuard.of(guard), average))
    return across, up
