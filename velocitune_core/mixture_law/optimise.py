"""Find the mixture with the least predicted average that keeps the guards, inside what the runs cover."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.at_hand import AtHand
from velocitune_core.mixture_law.constrained import Solution, solve
from velocitune_core.mixture_law.feasibility import feasible_start, why_unkept
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
    that keep the guards under the law itself, they have the least mean regret over the resamples. A reference or a
    measured run that the runs cover beyond the region is recommended in their place if it is predicted to be better.

    Args:
        law: a fitted law.
        objective: the average and its guards, by name.
        support: weights of runs by domain, whose region the mixtures keep to (a DataFrame, {domain: (R,)} or a list
            of {domain: weight}), or a `Support`; None: the runs that the law was fitted to.
        bootstrap: how many resamples of the law to use; None: all that it has.
        temperatures: T of the reference mixtures w ∝ w₀^(1/T).
        level: of the intervals.

    Raises ObjectiveError for an objective that contradicts itself or the law, for guards that no mixture keeps, and for
    options that are out of range.
    """
    problem = Problem.of(law, objective, support)
    count = law.resamples if bootstrap is None else bootstrap
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 0:
        raise ObjectiveError(f"bootstrap is {count!r}; give a whole number of resamples, or None for all of the law's")
    if count > law.resamples:
        raise ObjectiveError(
            f"bootstrap is {count}, but the law has {law.resamples} resamples; fit it with bootstrap={count}"
        )
    chosen = tuple(temperatures)
    if wrong := [t for t in chosen if not (isinstance(t, (int, float)) and 0 < t < np.inf)]:
        raise ObjectiveError(f"temperatures hold {wrong}; they are numbers above 0: 1 is static, larger is more equal")
    found = find(problem, law, count, AtHand.of(problem, law.runs.weights, chosen))
    return assemble(law, problem, found, objective, temperatures=chosen, level=level)


@dataclass(frozen=True)
class MeanLaw:
    """The mean of a law's resamples: its optimum has the least mean regret over them."""

    law: Law
    laws: tuple[Losses, ...]  # its first resamples

    def losses(self, weights: Array) -> Array:
        """Return the mean losses (..., I)."""
        return self.law.resampled_losses(weights)[: len(self.laws)].mean(axis=0)

    def jacobian(self, weights: Array) -> Array:
        """Return their derivatives (..., I, K)."""
        return np.mean([law.jacobian(weights) for law in self.laws], axis=0)


def find(problem: Problem, law: Law, count: int, at_hand: AtHand) -> Found:
    """Return the optimum of a problem, those of its first `count` resampled laws, and the recommended weights."""
    convex = law.convex
    try:
        begin = [feasible_start(problem)]
    except ObjectiveError:
        if at_hand.best(problem) is None:
            raise ObjectiveError(why_unkept(problem, at_hand)) from None
        begin = []  # only further out
    near = starts(problem, begin[0], convex) if begin else []
    optimum = at_hand.or_better(problem, near, convex=convex)
    unguarded = problem.terms.without_guards()
    free = at_hand.or_better(
        Problem(law, unguarded, problem.support), [optimum.weights, *begin, problem.support.centre], convex=convex
    )
    laws = tuple(law.resampled(index) for index in range(count))
    recommended_problem, recommended = problem, optimum
    if laws:
        recommended_problem = Problem(MeanLaw(law, laws), problem.terms, problem.support, guarding=law)
        from_law = [optimum.weights, *begin] if begin else []
        recommended = at_hand.or_better(recommended_problem, from_law, convex=convex)
    return Found(
        laws=laws,
        optimum=optimum,
        recommended=recommended,
        recommended_problem=recommended_problem,
        free=free,
        resampled=[
            _resampled(Problem(each, problem.terms, problem.support), optimum, at_hand, convex) for each in laws
        ],
        free_resampled=[
            at_hand.or_better(Problem(each, unguarded, problem.support), [free.weights], convex=convex) for each in laws
        ],
        at_hand=at_hand,
    )


def _resampled(problem: Problem, near: Solution, at_hand: AtHand, convex: bool) -> Solution | None:
    """Return the optimum under another law, searched from one nearby; None if no mixture keeps the guards."""
    given = at_hand.best(problem)
    if problem.room.is_empty:
        return given
    found = solve(problem, [near.weights], convex=convex)
    if found.feasible and (found.proven or not convex):
        return at_hand.better(found, given)
    try:
        start = feasible_start(problem)
    except ObjectiveError:
        return given
    return at_hand.better(solve(problem, [start, near.weights], convex=convex), given)


def starts(problem: Problem, start: Array, convex: bool) -> list[Array]:
    """Return mixtures (K,) to start from: for a law that is not convex, also random ones, the same every time."""
    several = [start, problem.support.centre]
    if not convex:
        draws = np.random.default_rng(0).dirichlet(np.ones(len(start)), RANDOM_STARTS)
        several += list(0.5 * (draws + start))
    return several
