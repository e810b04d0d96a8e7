"""The frontier of constant mixtures, which a strategy has to beat.

A plane has two losses, and less is better in both. Constant mixtures trade one for the other at no cost, so a strategy
that is better on one axis alone has not gained; it gains if it is below the line of constant mixtures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

END_SHARE = 0.1  # of the frontier's width, over which the slope of its left end is measured


@dataclass(frozen=True)
class Frontier:
    """A falling convex line through points, from the leftmost to the lowest.

    It is the lower left convex hull, so dominated mixtures do not raise it. Noise lowers a hull: with noisy points the
    frontier is biased towards being hard to beat.
    """

    x: NDArray[np.float64]  # (vertices,), rising
    y: NDArray[np.float64]  # (vertices,), falling

    @classmethod
    def through(cls, points: Iterable[tuple[float, float]]) -> Frontier:
        """Return the frontier of (x, y) points. Raises ValueError without points."""
        ordered = sorted(set(points))
        if not ordered:
            raise ValueError("a frontier needs at least one point")
        lowest = min(range(len(ordered)), key=lambda index: (ordered[index][1], index))
        hull: list[tuple[float, float]] = []
        for point in ordered[: lowest + 1]:
            if hull and point[0] == hull[-1][0]:
                continue  # above the previous point
            while len(hull) > 1 and not _turns_left(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        return cls(np.array([x for x, _ in hull]), np.array([y for _, y in hull]))

    @property
    def left_slope(self) -> float:
        """Slope of the extrapolation beyond the left end, at most 0.

        A convex frontier is nowhere below the extrapolation of its steepest segment, so a point below that line is
        below any frontier. Two mixtures that nearly coincide give a segment of any slope by noise alone, so the slope
        is that of the first tenth of the width; it is less steep than the end segment if that is shorter. For a single
        point the slope is 0.
        """
        if len(self.x) == 1:
            return 0.0
        inside = max(self.x[1], self.x[0] + END_SHARE * (self.x[-1] - self.x[0]))
        return float((np.interp(inside, self.x, self.y) - self.y[0]) / (inside - self.x[0]))

    def height(self, x: float) -> float:
        """Return the frontier at x: extrapolated left of the first point, constant right of the lowest."""
        if x < self.x[0]:
            return float(self.y[0] + self.left_slope * (x - self.x[0]))
        return float(np.interp(x, self.x, self.y))

    def distance(self, x: float, y: float) -> float:
        """Return the vertical distance of (x, y) above the frontier; negative below it."""
        distance = y - self.height(x)
        return 0.0 if abs(distance) < 1e-12 else distance  # rounding error of a vertex

    def reaches(self, x: float) -> bool:
        """Return whether x is not left of the frontier, where it is extrapolated."""
        return bool(x >= self.x[0])


def _turns_left(one: tuple[float, float], two: tuple[float, float], three: tuple[float, float]) -> bool:
    """Return whether `two` is strictly below the line from `one` to `three`."""
    return (two[0] - one[0]) * (three[1] - one[1]) > (three[0] - one[0]) * (two[1] - one[1])
