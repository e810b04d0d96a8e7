"""The mixtures that bounds of weights and the runs leave, whatever a law predicts for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # and scipy.optimize at its first use: importing it takes longer than most commands need
from numpy.typing import NDArray

from velocitune_core.mixture_law.share_bounds import ShareBounds
from velocitune_core.mixture_law.support import Support

Array = NDArray[np.float64]
FEASIBLE = 1e-6  # nats, and in the squared distance of the support
ACTIVE_SHARE = 1e-6  # of a weight to its bound
MOST_STEPS = 300


@dataclass(frozen=True)
class Room:
    """The mixtures within an objective's bounds of weights and within the reach of an optimum."""

    bounds: Sequence[ShareBounds]  # of each domain
    support: Support

    @cached_property
    def low(self) -> Array:
        """Least weight (K,): the larger one of the objective's and the support's."""
        return np.maximum([bound.low for bound in self.bounds], self.support.low)

    @cached_property
    def high(self) -> Array:
        """Largest weight (K,)."""
        return np.minimum([bound.high for bound in self.bounds], self.support.high)

    @property
    def is_empty(self) -> bool:
        """Whether the bounds leave no mixture, the ellipsoid of the runs aside."""
        some = (self.low <= self.high + 1e-12).all() and self.low.sum() <= 1 + 1e-9 and self.high.sum() >= 1 - 1e-9
        return not some

    def keeps_bounds(self, weights: Array) -> np.ndarray:
        """Return whether mixtures (C, K) keep the objective's own bounds, those of the runs aside: (C,)."""
        low, high = (np.array([getattr(bound, side) for bound in self.bounds]) for side in ("low", "high"))
        return np.all((weights >= low - ACTIVE_SHARE) & (weights <= high + ACTIVE_SHARE), axis=-1)

    def nearest(self) -> Array | None:
        """Return the mixture (K,) nearest to the runs' centre; None if there is none within the reach."""
        if self.is_empty:
            return None
        weights = self._nearest_of_bounds()
        return weights if self.support.excess(weights) <= FEASIBLE else None

    def _nearest_of_bounds(self) -> Array:
        result = scipy.optimize.minimize(
            self.support.excess,
            np.clip(self.support.centre, self.low, self.high),
            jac=self.support.excess_gradient,
            method="SLSQP",
            bounds=list(zip(self.low, self.high, strict=True)),
            constraints=[{"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(len(x))}],
            options={"maxiter": MOST_STEPS, "ftol": 1e-10},
        )
        return self.onto_simplex(result.x)

    def onto_simplex(self, weights: Array) -> Array:
        """Remove rounding errors of a solver: bounds hold exactly, and the weights sum to 1."""
        weights = np.clip(weights, self.low, self.high)
        for _ in range(3):
            missing = 1 - weights.sum()
            room = self.high - weights if missing > 0 else weights - self.low
            if abs(missing) < 1e-15 or not room.sum() > 0:
                break
            weights = np.clip(weights + missing * room / room.sum(), self.low, self.high)
        return weights

    def outside(self) -> list[str]:
        """Return which bounds lie outside what the runs cover, a line each; of a room in which there is no mixture."""
        lines = []
        for bound, low, high in zip(self.bounds, self.support.low, self.support.high, strict=True):
            if bound.low > high + 1e-12:
                lines.append(
                    f"objective.least_share of {bound.domain} is {bound.low:.4g}; the runs go up to {high:.4g}"
                )
            if bound.high < low - 1e-12:
                lines.append(
                    f"objective.{bound.high_from} keeps {bound.domain} below {bound.high:.4g}; the runs begin at "
                    f"{low:.4g}"
                )
        if not lines and not self.is_empty:
            far = float(self.support.distance(self._nearest_of_bounds()))
            lines = [
                "objective.least_share, largest_share and epochs together leave no mixture near enough to the runs: "
                f"the nearest is at a distance of {far:.2g}, an optimum keeps to {self.support.reach:.2g}"
            ]
        return lines or ["no mixture within the objective's bounds of weights is covered by the runs"]
