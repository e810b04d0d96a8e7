"""Solve a guarded problem, prove the solution by its optimality conditions, and say what each guard costs.

SciPy's SLSQP finds the point. The multipliers are computed from the gradients alone, as the non-negative combination of
active constraints that cancels the gradient (Karush, Kuhn and Tucker); what remains of it is the proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy  # and scipy.optimize at its first use: importing it takes longer than most commands need
from numpy.typing import NDArray

from velocitune_core.mixture_law.guarded_problem import Problem
from velocitune_core.mixture_law.room import ACTIVE_SHARE, FEASIBLE, MOST_STEPS

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
PROVEN = 1e-4  # remaining gradient, of its own size


@dataclass(frozen=True)
class Solution:
    """A mixture, with the multipliers of what binds: nats of the average per unit that a limit is loosened."""

    weights: Array  # (K,)
    value: float
    violation: float  # largest excess of a guard in nats, or of the support; at most FEASIBLE if all are kept
    guard_prices: Array  # (G,) nats per nat
    low_prices: Array  # (K,) nats per unit of weight
    high_prices: Array  # (K,)
    support_price: float  # nats per unit of squared distance
    residual: float  # of the optimality conditions, relative to the gradient
    given: str = ""  # name of the mixture at hand that it is; "" for one that was searched
    alone: bool = False  # of a mixture at hand: no mixture within the reach of an optimum keeps the guards

    @property
    def feasible(self) -> bool:
        """Whether all guards are kept."""
        return self.violation <= FEASIBLE

    @property
    def proven(self) -> bool:
        """Whether the optimality conditions hold; for a convex problem this is the optimum."""
        return self.feasible and self.residual <= PROVEN


def solve(problem: Problem, starts: Iterable[Array], *, convex: bool = True) -> Solution:
    """Return the best mixture found from the starts (K,); for a convex problem the first that is proven."""
    best: Solution | None = None
    for start in starts:
        found = certified(problem, _descend(problem, np.clip(start, problem.low, problem.high)))
        if best is None or (max(found.violation, FEASIBLE), found.value) < (max(best.violation, FEASIBLE), best.value):
            best = found
        if convex and best.proven:
            break
    assert best is not None, "a problem needs at least one start"
    return best


def least_violation(problem: Problem, start: Array, guards: Mask, hard: Mask | None = None) -> tuple[Array, float]:
    """Minimise the largest excess of some guards; return the mixture (K,) and that excess in nats.

    Args:
        guards: (G,) which guards are loosened together.
        hard: (G,) which guards are kept meanwhile; None: no other.
    """
    k = len(start)
    start = np.clip(start, problem.low, problem.high)
    soft, kept = np.flatnonzero(guards), np.flatnonzero(np.zeros_like(guards) if hard is None else hard)
    rows = np.r_[soft, kept].astype(int)
    loosened = np.r_[np.ones(len(soft)), np.zeros(len(kept))]
    constraints = [
        {"type": "eq", "fun": lambda x: x[:k].sum() - 1, "jac": lambda x: np.r_[np.ones(k), 0.0]},
        {
            "type": "ineq",
            "fun": lambda x: loosened * x[k] - problem.excess(x[:k])[rows],
            "jac": lambda x: np.c_[-problem.excess_jacobian(x[:k])[rows], loosened],
        },
        {
            "type": "ineq",
            "fun": lambda x: np.array([-problem.support.excess(x[:k])]),
            "jac": lambda x: np.r_[-problem.support.excess_gradient(x[:k]), 0.0][None],
        },
    ]
    highest = float(problem.excess(start)[soft].max()) if len(soft) else 0.0
    result = scipy.optimize.minimize(
        lambda x: x[k],
        np.r_[start, highest],
        jac=lambda x: np.r_[np.zeros(k), 1.0],
        method="SLSQP",
        bounds=[*zip(problem.low, problem.high, strict=True), (None, None)],
        constraints=constraints,
        options={"maxiter": MOST_STEPS, "ftol": 1e-10},
    )
    weights = problem.room.onto_simplex(result.x[:k])
    return weights, float(problem.excess(weights)[soft].max())


def _descend(problem: Problem, start: Array) -> Array:
    constraints = [
        {"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(len(x))},
        {
            "type": "ineq",
            "fun": lambda x: np.r_[-problem.excess(x), -problem.support.excess(x)],
            "jac": lambda x: np.r_[-problem.excess_jacobian(x), -problem.support.excess_gradient(x)[None]],
        },
    ]
    result = scipy.optimize.minimize(
        problem.value,
        start,
        jac=problem.gradient,
        method="SLSQP",
        bounds=list(zip(problem.low, problem.high, strict=True)),
        constraints=constraints,
        options={"maxiter": MOST_STEPS, "ftol": 1e-11},
    )
    return problem.room.onto_simplex(result.x)


def certified(problem: Problem, weights: Array) -> Solution:
    """Return a mixture with the multipliers of its active constraints and what they leave of the gradient."""
    gradient, k = problem.gradient(weights), len(weights)
    excess, outside = problem.excess(weights), problem.support.excess(weights)
    guards = np.flatnonzero(excess > -FEASIBLE)
    low, high = (
        np.flatnonzero(weights <= problem.low + ACTIVE_SHARE),
        np.flatnonzero(weights >= problem.high - ACTIVE_SHARE),
    )
    edge = problem.support.excess_gradient(weights)[:, None] if outside > -1e-5 else np.empty((k, 0))
    unit, ones = np.eye(k), np.ones((k, 1))
    columns = np.hstack([problem.excess_jacobian(weights)[guards].T, edge, -unit[:, low], unit[:, high], ones, -ones])
    scales = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    multipliers, left = scipy.optimize.nnls(columns / scales, -gradient)
    multipliers = multipliers / scales
    prices, rest = np.zeros(len(excess)), multipliers[len(guards) :]
    prices[guards] = multipliers[: len(guards)]
    support_price = float(rest[0]) if edge.shape[1] else 0.0
    rest = rest[edge.shape[1] :]
    low_prices, high_prices = np.zeros(k), np.zeros(k)
    low_prices[low], high_prices[high] = rest[: len(low)], rest[len(low) : len(low) + len(high)]
    size = np.linalg.norm(gradient)
    return Solution(
        weights=weights,
        value=problem.value(weights),
        violation=float(max(excess.max(initial=0.0), outside, 0.0)),
        guard_prices=prices,
        low_prices=low_prices,
        high_prices=high_prices,
        support_price=support_price,
        residual=float(left / size) if size > 0 else 0.0,
    )
