"""The frontier of constant mixtures: what a strategy has to beat before it has gained anything.

A plane has two losses, less is better in both. By choosing a constant mixture anyone can trade one for the other, so a
strategy that is better on one axis alone has shown nothing; it gains if it lies below the line of constant mixtures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

END_SHARE = 0.1  # of the frontier's width, over which the slope of its left end is taken


@dataclass(frozen=True)
class Frontier:
    """A falling convex line through points, from the leftmost to the lowest.

    It is the lower left convex hull, so a mixture that others dominate does not lift it and make it easier to beat.
    Noise only ever lowers a hull: with noisy points the frontier errs towards being hard to beat.
    """

    x: NDArray[np.float64]  # (vertices,), rising
    y: NDArray[np.float64]  # (vertices,), falling

    @classmethod
    def through(cls, points: Iterable[tuple[float, float]]) -> Frontier:
        """Raises ValueError without points."""
        ordered = sorted(set(points))
        if not ordered:
            raise ValueError("a frontier needs at least one point")
        lowest = min(range(len(ordered)), key=lambda index: (ordered[index][1], index))
        hull: list[tuple[float, float]] = []
        for point in ordered[: lowest + 1]:
            if hull and point[0] == hull[-1][0]:
                continue  # above the one before
            while len(hull) > 1 and not _turns_left(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        return cls(np.array([x for x, _ in hull]), np.array([y for _, y in hull]))

    @property
    def left_slope(self) -> float:
        """Slope of the line beyond the left end, at most 0.

        A convex frontier is nowhere below the line that prolongs its steepest segment, so that line is the lowest it
        can go on, and what lies below it lies below any frontier. Two mixtures that nearly coincide make a segment of
        any slope by noise alone, so the slope is that of the first tenth of the width, which is the end segment's own
        unless that is shorter, and then less steep. One point alone has no slope: the line is flat.
        """
        if len(self.x) == 1:
            return 0.0
        inside = max(self.x[1], self.x[0] + END_SHARE * (self.x[-1] - self.x[0]))
        return float((np.interp(inside, self.x, self.y) - self.y[0]) / (inside - self.x[0]))

    def height(self, x: float) -> float:
        """The frontier at x: on the left end's line before the first point, flat after the lowest."""
        if x < self.x[0]:
            return float(self.y[0] + self.left_slope * (x - self.x[0]))
        return float(np.interp(x, self.x, self.y))

    def distance(self, x: float, y: float) -> float:
        """Vertical: how far (x, y) lies above the frontier; negative below it."""
        distance = y - self.height(x)
        return 0.0 if abs(distance) < 1e-12 else distance  # rounding, where a point is itself a vertex

    def reaches(self, x: float) -> bool:
        """Whether x is right of the left end, so that nothing is extrapolated."""
        return bool(x >= self.x[0])


def _turns_left(one: tuple[float, float], two: tuple[float, float], three: tuple[float, float]) -> bool:
    """Whether `two` lies strictly below the line from `one` to `three`."""
    return (two[0] - one[0]) * (three[1] - one[1]) > (three[0] - one[0]) * (two[1] - one[1])
