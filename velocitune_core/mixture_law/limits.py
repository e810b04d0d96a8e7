"""What binds at a recommended mixture, and what it costs: the optimum is searched again under limits a step looser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from velocitune_core.mixture_law.at_hand import AtHand
from velocitune_core.mixture_law.constrained import Solution
from velocitune_core.mixture_law.guarded_problem import Losses, Problem
from velocitune_core.mixture_law.mixture_plan import Limit, LimitKind
from velocitune_core.mixture_law.room import ACTIVE_SHARE, FEASIBLE
from velocitune_core.mixture_law.table import is_constant

NEGLIGIBLE_PRICE = 1e-9
NEGLIGIBLE_GAIN = 1e-6  # nats
STEP, EPOCHS_STEP = 0.01, 0.1  # of nats and weights; of epochs


def limits(
    problem: Problem, solution: Solution, laws: Sequence[Losses], at_hand: AtHand, *, convex: bool
) -> list[Limit]:
    """Return every guard, each bound of weights that binds, and the runs' region if it binds.

    Of an optimum, what has a price binds. Of a mixture at hand nothing has one: there it is what, loosened by a step,
    gives another mixture.
    """
    loosened = _Loosened(problem, solution, at_hand, convex)
    return [*_guards(loosened, laws), *_bounds(loosened), *_runs(loosened)]


@dataclass(frozen=True)
class _Loosened:
    """Optima of a problem under looser limits."""

    problem: Problem
    solution: Solution
    at_hand: AtHand
    convex: bool

    def priced(self, limit: Limit, problem: Problem, step: float) -> Limit:
        """Return a limit with what a looser problem gains, if it binds."""
        if not self.solution.given and limit.price <= NEGLIGIBLE_PRICE:
            return limit
        return self.bound_by(limit, self.optimum(problem), step)

    def bound_by(self, limit: Limit, better: Solution, step: float) -> Limit:
        """Return a limit with what another optimum, found under a looser one, gains."""
        gain = self.solution.value - better.value
        if limit.price <= NEGLIGIBLE_PRICE and gain <= NEGLIGIBLE_GAIN:
            return limit
        return replace(limit, binds=True, gain=max(gain, 0.0), step=step)

    def optimum(self, problem: Problem) -> Solution:
        """Return the optimum of a looser problem, or the mixture at hand that is better."""
        starts = [each for each in (self.solution.weights, problem.room.nearest()) if each is not None]
        return self.at_hand.or_better(problem, starts, convex=self.convex)


def _guards(loosened: _Loosened, laws: Sequence[Losses]) -> list[Limit]:
    problem, solution = loosened.problem, loosened.solution
    terms, excess = problem.terms, problem.excess(solution.weights)
    broken = np.array([Problem(law, terms, problem.support).excess(solution.weights) for law in laws])
    found: list[Limit] = []
    optima: dict[tuple[bool, ...], Solution] = {}  # by the guards that were loosened
    for index, guard in enumerate(terms.guards):
        limit = Limit(
            guard.kind,
            guard.about,
            guard.limit,
            guard.limit + float(excess[index]),
            False,
            float(solution.guard_prices[index]),
            for_all=guard.shared,
            kept_in=float((broken[:, index] <= FEASIBLE).mean()) if len(laws) else None,
        )
        if solution.given or limit.price > NEGLIGIBLE_PRICE:
            which = tuple(each is guard or (guard.shared and each.kind == guard.kind) for each in terms.guards)
            if which not in optima:
                optima[which] = loosened.optimum(_with_looser_guards(problem, which))
            if limit.price > NEGLIGIBLE_PRICE or problem.excess(optima[which].weights)[index] > FEASIBLE:
                limit = loosened.bound_by(limit, optima[which], STEP)
        found.append(limit)
    return found


def _with_looser_guards(problem: Problem, which: Sequence[bool]) -> Problem:
    guards = [
        replace(guard, limit=guard.limit + STEP) if looser else guard
        for guard, looser in zip(problem.terms.guards, which, strict=True)
    ]
    return replace(problem, terms=replace(problem.terms, guards=tuple(guards)))


def _bounds(loosened: _Loosened) -> list[Limit]:
    """Return the objective's bounds of weights that bind."""
    problem, solution = loosened.problem, loosened.solution
    found = []
    for index, bound in enumerate(problem.terms.bounds):
        share = float(solution.weights[index])
        if bound.low > problem.support.low[index]:
            price = float(solution.low_prices[index])
            limit = Limit("least_share", bound.domain, bound.low, share, False, price, for_all=bound.low_shared)
            found.append(loosened.priced(limit, _with_looser(problem, index, "least_share"), STEP))
        if bound.high < problem.support.high[index]:
            price, kind = float(solution.high_prices[index]), _kind(bound.high_from)
            if kind == "epochs":
                per = bound.shares_per_epoch
                limit = Limit(kind, bound.domain, bound.high / per, share / per, False, price * per)
            else:
                limit = Limit(kind, bound.domain, bound.high, share, False, price)
            limit = replace(limit, for_all=bound.high_shared)
            step = EPOCHS_STEP if kind == "epochs" else STEP
            found.append(loosened.priced(limit, _with_looser(problem, index, kind), step))
    return [limit for limit in found if limit.binds]


def _kind(source: str) -> LimitKind:
    return "epochs" if source == "epochs" else "largest_share"


def _with_looser(problem: Problem, index: int, kind: LimitKind) -> Problem:
    """Return a problem in which a bound of one domain is a step looser, or that of all for which it is one number."""
    own, bounds = problem.terms.bounds[index], []
    for bound in problem.terms.bounds:
        if kind == "least_share":
            same = bound is own or (own.low_shared and bound.low_shared)
            looser = bound._replace(low=max(bound.low - STEP, 0.0))
        else:
            same = bound is own or (own.high_shared and bound.high_shared and bound.high_from == own.high_from)
            by = EPOCHS_STEP * bound.shares_per_epoch if kind == "epochs" else STEP
            looser = bound._replace(high=min(bound.high + by, 1.0))
        bounds.append(looser if same else bound)
    return replace(problem, terms=replace(problem.terms, bounds=tuple(bounds)))


def _runs(loosened: _Loosened) -> list[Limit]:
    """Return what of the runs' region binds: the distance, at a price per unit of it, and edges of domains' ranges.

    Weights of 0 and 1 are the edge of the simplex: no run could lie beyond them. A mixture at hand lies where it does.
    A domain with the same weight in every run has no edge with a price: nothing is known of what it teaches.
    """
    problem, solution = loosened.problem, loosened.solution
    support, found = problem.support, []
    if solution.support_price > NEGLIGIBLE_PRICE:
        distance = float(np.sqrt(support.excess(solution.weights) + support.reach**2))
        found.append(Limit("runs", "", support.reach, distance, True, 2 * support.reach * solution.support_price))
    if solution.given:
        return found
    for index, bound in enumerate(problem.terms.bounds):
        low, high = float(support.low[index]), float(support.high[index])
        if is_constant(low, high, len(problem.terms.bounds)):
            continue
        by = STEP * np.eye(len(support.low))[index]
        for edge, of_runs, price, wider in (
            (
                low,
                bound.low <= low and low > ACTIVE_SHARE,
                float(solution.low_prices[index]),
                replace(support, low=np.maximum(support.low - by, 0.0)),
            ),
            (
                high,
                bound.high >= high and high < 1 - ACTIVE_SHARE,
                float(solution.high_prices[index]),
                replace(support, high=np.minimum(support.high + by, 1.0)),
            ),
        ):
            if of_runs and price > NEGLIGIBLE_PRICE:
                limit = Limit("runs", bound.domain, edge, float(solution.weights[index]), True, price)
                found.append(loosened.priced(limit, replace(problem, support=wider), STEP))
    return found
