"""Find a mixture that keeps all guards, or say which of them no mixture keeps and the least limits that would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.at_hand import AtHand
from velocitune_core.mixture_law.constrained import Mask, least_violation
from velocitune_core.mixture_law.guarded_problem import Guard, Problem
from velocitune_core.mixture_law.named_guard import FIELDS
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.room import FEASIBLE, Room
from velocitune_core.mixture_law.share_bounds import share_bounds
from velocitune_core.mixture_law.support import Support, weights_by_name

Array = NDArray[np.float64]
OUTSIDE = "change the bounds, or make runs with such weights: outside the runs a law predicts nothing"


def feasible_start(problem: Problem) -> Array:
    """Return a mixture (K,) within the reach of an optimum that keeps guards and bounds.

    Raises ObjectiveError if there is none; `why_unkept` says why.
    """
    start = problem.room.nearest()
    guards = np.full(len(problem.terms.guards), True)
    if start is not None and guards.any():
        start, violation = least_violation(problem, start, guards)
        start = start if violation <= FEASIBLE / 2 else None
    if start is None:
        raise ObjectiveError("no mixture within the reach of an optimum keeps all guards and bounds")
    return start


def uncovered_bounds(
    objective: Objective, domains: Sequence[str], runs: Sequence[Mapping[str, float]], *, slack: float = 0.0
) -> list[str]:
    """Return why no mixture within the objective's bounds of weights will be covered by runs; [] if one will be.

    Args:
        objective: with initial weights, and without contradictions.
        domains: of the mixtures.
        runs: their weights by domain; static training is among them.
        slack: of every bound, since runs train on whole sequences.
    """
    bounds = [
        each._replace(low=max(each.low - slack, 0.0), high=min(each.high + slack, 1.0))
        for each in share_bounds(objective, domains)
    ]
    initial, weights = objective.initial_shares(), weights_by_name(list(runs), domains)
    static = None if initial is None else np.array([initial[name] for name in domains])
    support = Support.around(weights)
    support = support if static is None else support.reaching(static)
    room = Room(bounds, support)
    at_hand = AtHand.around(static, support, weights)
    if room.nearest() is not None or room.keeps_bounds(at_hand.weights).any():
        return []
    return Room(share_bounds(objective, domains), support).outside()


def why_unkept(problem: Problem, at_hand: AtHand) -> str:
    """Say which guards or bounds no mixture keeps, and the least limits of guards that would do.

    Each limit that is named suffices beside the guards that are not named in its line.
    """
    start, near = problem.room.nearest(), at_hand.weights[problem.room.keeps_bounds(at_hand.weights)]
    if start is None and not len(near):
        return "\n".join([*problem.room.outside(), OUTSIDE])
    least, settings = _Least(problem, near, start), _settings(problem.terms.guards)
    every, none = np.full(len(problem.terms.guards), True), np.full(len(problem.terms.guards), False)
    failing = [each for each in settings if least.excess(each.guards, none) > FEASIBLE]
    if len(failing) > 1:
        return _several(failing, least, every)
    lines = []
    for each in failing or settings:
        by = least.excess(each.guards, every & ~each.guards)
        if FEASIBLE < by < np.inf:
            kept = "no mixture that the runs cover keeps" if failing else "beside the other guards"
            lines.append(f"{each.field}: {kept} {each.said}; the least limit that would do is {each.loosened(by)}")
    if failing:
        return lines[0] if lines else _several(failing, least, every)
    first = "no mixture that the runs cover keeps all guards at once, under this law; loosen one of these:"
    by_all = f"all by {_up(least.excess(every, none))} nats"
    return "\n".join([first, *lines, f"or {by_all}"] if lines else [first.replace("one of these:", by_all)])


def _several(failing: Sequence[_Setting], least: _Least, every: Mask) -> str:
    """Name the guards that no mixture keeps, each alone, with limits that would do together: loosened alike."""
    union = np.any([each.guards for each in failing], axis=0)
    by = least.excess(union, every & ~union)
    if by == np.inf:
        what, by_all = "this" if len(failing) == 1 else "any of these", _up(least.excess(every, ~every))
        lines = [f"no mixture that the runs cover keeps {what}:", *(f"{each.field}: {each.said}" for each in failing)]
        return "\n".join([*lines, f"and none keeps the others; loosen all by {by_all} nats"])
    return "\n".join(
        [
            "no mixture that the runs cover keeps any of these; loosened alike, the least limits that would do are:",
            *(f"{each.field}: {each.loosened(by)}, not {each.said}" for each in failing),
        ]
    )


@dataclass(frozen=True)
class _Setting:
    """A number of the objective, and the guards that it is the limit of."""

    field: str
    limit: float
    guards: Mask  # (G,)
    where: str = ""  # that it holds, if the number is for several sets

    @property
    def said(self) -> str:
        return f"{self.limit + 0.0:+.4g} nats{self.where}"

    def loosened(self, by: float) -> str:
        return _up(self.limit + by)


def _settings(guards: Sequence[Guard]) -> list[_Setting]:
    found: dict[str, _Setting] = {}
    for guard, own in zip(guards, np.eye(len(guards), dtype=bool), strict=True):
        field = f"objective.{FIELDS[guard.kind]}" + ("" if guard.shared else f" of {guard.about}")
        where = {"set": " in every set", "forgetting": " in every retained set"}[guard.kind] if guard.shared else ""
        known = found.setdefault(field, _Setting(field, guard.limit, own, where))
        found[field] = replace(known, guards=known.guards | own)
    return list(found.values())


@dataclass(frozen=True)
class _Least:
    """By how much guards must be loosened for a mixture to keep them."""

    problem: Problem
    near: Array  # (C, K) mixtures at hand, within the bounds
    start: Array | None  # (K,) within the reach of an optimum

    def excess(self, loosened: Mask, kept: Mask) -> float:
        """Return the least common excess of some guards, nats, while others are kept; infinite if these cannot be."""
        found = [np.inf]
        if len(self.near):
            over = self.problem.excess(self.near)  # (C, G)
            found += list(over[(over[:, kept] <= FEASIBLE).all(axis=1)][:, loosened].max(axis=1))
        if self.start is not None:
            weights, violation = least_violation(self.problem, self.start, loosened, kept)
            over = self.problem.excess(weights)[kept]
            if over.max(initial=0.0) <= FEASIBLE and self.problem.support.excess(weights) <= FEASIBLE:
                found.append(violation)
        return float(min(found))


def _up(value: float) -> str:
    """A limit, rounded up so that it does indeed suffice: to four decimals, the solver's error of 1e-7 aside."""
    return f"{np.ceil(value * 1e4 - 1e-3) / 1e4 + 0.0:.4f}"
