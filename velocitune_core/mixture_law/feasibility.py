"""Find a mixture that keeps all guards, or say which of them no mixture keeps and the least limit that would do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.constrained import FEASIBLE, inside_bounds, least_violation
from velocitune_core.mixture_law.guarded_problem import Guard, Problem
from velocitune_core.mixture_law.objective import ObjectiveError

Array = NDArray[np.float64]


def feasible_start(problem: Problem) -> Array:
    """Return a mixture (K,) that keeps guards, bounds and support. Raises ObjectiveError, with the reason."""
    start = inside_bounds(problem)
    if start is None:
        raise ObjectiveError(_outside(problem))
    guards = np.full(len(problem.terms.guards), True)
    if not guards.any():
        return start
    weights, violation = least_violation(problem, start, guards)
    if violation <= FEASIBLE / 2:
        return weights
    raise ObjectiveError(_unkept(problem, start, weights, violation))


def _unkept(problem: Problem, start: Array, weights: Array, violation: float) -> str:
    """Name the guards that no mixture keeps, alone or beside the others."""
    guards, lines = problem.terms.guards, []
    one = np.eye(len(guards), dtype=bool)
    for index, guard in enumerate(guards):
        _, alone = least_violation(problem, start, one[index])
        if alone > FEASIBLE:
            lines.append(f"{_field(guard)}: no mixture that the runs cover keeps {_said(guard, guard.limit, alone)}")
    if lines:
        return "\n".join(lines)
    tight = np.flatnonzero(problem.excess(weights) > violation - 1e-4)
    for index in tight:
        _, beside = least_violation(problem, weights, one[index], ~one[index])
        lines.append(
            f"{_field(guards[index])}: beside the other guards {_said(guards[index], guards[index].limit, beside)}"
        )
    return (
        "no mixture that the runs cover keeps all guards at once, under this law; loosen one of these:\n"
        + "\n".join(lines)
        + f"\nor all of them by {_up(violation)} nats"
    )


def _field(guard: Guard) -> str:
    field = {"set": "worse_than_static", "average": "averages_worse_than_static", "forgetting": "forgetting"}[
        guard.kind
    ]
    return f"objective.{field} of {guard.about}"


def _said(guard: Guard, limit: float, excess: float) -> str:
    return f"{limit:+.4g} nats; the least limit that would do is {_up(limit + excess)}"


def _up(value: float) -> str:
    """A limit, rounded up so that it does indeed suffice."""
    return f"{np.ceil(value * 1e4 - 1e-6) / 1e4:.4f}"


def _outside(problem: Problem) -> str:
    """Say which bounds of weights lie outside what the runs cover."""
    lines = []
    for bound, low, high in zip(problem.terms.bounds, problem.support.low, problem.support.high, strict=True):
        if bound.low > high + 1e-12:
            lines.append(f"objective.least_share of {bound.domain} is {bound.low:.4g}; the runs go up to {high:.4g}")
        if bound.high < low - 1e-12:
            lines.append(
                f"objective.{bound.high_from} keeps {bound.domain} below {bound.high:.4g}; the runs begin at {low:.4g}"
            )
    advice = "change the bounds, or make runs with such weights: outside the runs a law predicts nothing"
    return "\n".join(
        [*(lines or ["no mixture within the objective's bounds of weights is covered by the runs"]), advice]
    )
