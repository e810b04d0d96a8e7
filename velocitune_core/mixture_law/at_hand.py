"""Mixtures that are at hand, references and measured runs: what is recommended must not be worse than they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.constrained import Solution, solve
from velocitune_core.mixture_law.guarded_problem import Problem
from velocitune_core.mixture_law.references import TEMPERATURES, reference_mixtures
from velocitune_core.mixture_law.room import FEASIBLE
from velocitune_core.mixture_law.support import COVERED, Support

Array = NDArray[np.float64]
NO_BETTER = 1e-7  # nats


@dataclass(frozen=True)
class AtHand:
    """References and runs that the runs cover: further out than an optimum may lie, but not made up by the law."""

    names: tuple[str, ...]
    weights: Array  # (C, K)

    @classmethod
    def of(cls, problem: Problem, runs: Array, temperatures: Iterable[float] = TEMPERATURES) -> AtHand:
        """Return those of a problem whose law was fitted to runs (R, K)."""
        runs = np.reshape(runs, (-1, len(problem.terms.domains)))
        return cls.around(problem.terms.static, problem.support, runs, temperatures)

    @classmethod
    def around(
        cls, static: Array | None, support: Support, runs: Array, temperatures: Iterable[float] = TEMPERATURES
    ) -> AtHand:
        """Return those of initial weights (K,), of which there may be none, and of runs (R, K)."""
        references = reference_mixtures(static, runs.shape[1], temperatures)
        names = [*references, *["one of the runs"] * len(runs)]
        weights = np.vstack([*references.values(), runs])
        covered = support.distance(weights) <= COVERED
        return cls(tuple(name for name, inside in zip(names, covered, strict=True) if inside), weights[covered])

    def best(self, problem: Problem) -> Solution | None:
        """Return the best of them that keeps bounds and guards; None if none does. Nothing has a price there."""
        kept = problem.room.keeps_bounds(self.weights) & (problem.excess(self.weights) <= FEASIBLE).all(axis=1)
        if not kept.any():
            return None
        values = np.where(kept, problem.law.losses(self.weights) @ problem.terms.average, np.inf)
        index = int(values.argmin())
        none = np.zeros(self.weights.shape[1])
        return Solution(
            weights=self.weights[index],
            value=float(values[index]),
            violation=0.0,
            guard_prices=np.zeros(len(problem.terms.guards)),
            low_prices=none,
            high_prices=none,
            support_price=0.0,
            residual=1.0,
            given=self.names[index],
        )

    def or_better(self, problem: Problem, starts: Sequence[Array], *, convex: bool) -> Solution:
        """Return the optimum found from the starts (K,), or what is at hand if that is better or keeps more guards.

        Without starts, one of the mixtures at hand must keep all guards.
        """
        given = self.best(problem)
        if not len(starts):
            assert given is not None, "without a start, a mixture at hand must keep the guards"
            return replace(given, alone=True)
        return self.better(solve(problem, starts, convex=convex), given)

    @staticmethod
    def better(found: Solution, given: Solution | None) -> Solution:
        """Return the better of an optimum and a mixture at hand."""
        if given is not None and (not found.feasible or given.value < found.value - NO_BETTER):
            return replace(given, alone=not found.feasible)
        return found
