"""Find the mixture with the least predicted average that keeps the guards, inside what the runs cover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.constrained import Solution, solve
from velocitune_core.mixture_law.feasibility import feasible_start
from velocitune_core.mixture_law.guarded_problem import Law, Losses, Problem
from velocitune_core.mixture_law.mixture_plan import MixturePlan
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.plan_evidence import Found, assemble
from velocitune_core.mixture_law.references import TEMPERATURES
from velocitune_core.mixture_law.support import Support, Table

Array = NDArray[np.float64]
RANDOM_STARTS = 8  # of a law that is not convex


def optimise_mixture(
    law: Law,
    objective: Objective,
    *,
    support: Support | Table | None = None,
    bootstrap: int | None = None,
    temperatures: Iterable[float] = TEMPERATURES,
    level: float = 0.95,
) -> MixturePlan:
    """Return the weights with the least predicted average that keep the objective's guards, and the evidence.

    With resamples, the recommended weights minimise the mean of the resampled laws: of all mixtures inside the region
    that keep the guards under the law itself, they have the least mean regret over the resamples.

    Args:
        law: a fitted law.
        objective: the average and its guards, by name.
        support: weights of runs by domain, whose region the mixtures keep to (a DataFrame, {domain: (R,)} or a list
            of {domain: weight}), or a `Support`; None: the runs that the law was fitted to.
        bootstrap: how many resamples of the law to use; None: all that it has.
        temperatures: T of the reference mixtures w ∝ w₀^(1/T).
        level: of the intervals.

    Raises ObjectiveError for an objective that contradicts itself or the law, and for guards that no mixture keeps.
    """
    problem = Problem.of(law, objective, support)
    count = law.resamples if bootstrap is None else bootstrap
    if not 0 <= count <= law.resamples:
        raise ObjectiveError(
            f"bootstrap is {count}, but the law has {law.resamples} resamples; fit it with bootstrap={count}"
        )
    laws = tuple(law.resampled(index) for index in range(count))
    found = find(problem, laws, convex=law.convex)
    return assemble(law, problem, found, objective, temperatures=tuple(temperatures), level=level)


@dataclass(frozen=True)
class MeanLaw:
    """The mean of several laws' losses: its optimum has the least mean regret over them."""

    laws: tuple[Losses, ...]

    def losses(self, weights: Array) -> Array:
        """Return the mean losses (..., I)."""
        return np.mean([law.losses(weights) for law in self.laws], axis=0)

    def jacobian(self, weights: Array) -> Array:
        """Return their derivatives (..., I, K)."""
        return np.mean([law.jacobian(weights) for law in self.laws], axis=0)


def find(problem: Problem, laws: Sequence[Losses], *, convex: bool) -> Found:
    """Return the optimum of a problem, those of its resampled laws, and the recommended weights."""
    start = feasible_start(problem)
    optimum = solve(problem, starts(problem, start, convex), convex=convex)
    free = solve(
        Problem(problem.law, problem.terms.without_guards(), problem.support), [optimum.weights, start], convex=convex
    )
    resampled = [_resampled(Problem(each, problem.terms, problem.support), optimum, convex) for each in laws]
    free_resampled = [
        solve(Problem(each, problem.terms.without_guards(), problem.support), [free.weights], convex=convex)
        for each in laws
    ]
    recommended_problem, recommended = problem, optimum
    if laws:
        recommended_problem = Problem(MeanLaw(tuple(laws)), problem.terms, problem.support, guarding=problem.law)
        recommended = solve(recommended_problem, [optimum.weights, start], convex=convex)
    return Found(tuple(laws), optimum, recommended, recommended_problem, free, resampled, free_resampled)


def _resampled(problem: Problem, near: Solution, convex: bool) -> Solution | None:
    """Return the optimum under another law, searched from one nearby; None if no mixture keeps the guards."""
    found = solve(problem, [near.weights], convex=convex)
    if found.feasible and (found.proven or not convex):
        return found
    try:
        start = feasible_start(problem)
    except ObjectiveError:
        return None
    return solve(problem, [start, near.weights], convex=convex)


def starts(problem: Problem, start: Array, convex: bool) -> list[Array]:
    """Return mixtures (K,) to start from: for a law that is not convex, also random ones, the same every time."""
    several = [start, problem.support.centre]
    if not convex:
        draws = np.random.default_rng(0).dirichlet(np.ones(len(start)), RANDOM_STARTS)
        several += list(0.5 * (draws + start))
    return several
