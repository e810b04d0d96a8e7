"""Steering along a planned course: planned weights, corrected where a domain is behind its plan or ahead of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from velocitune_core.strategies.base import Observation, StrategyError
from velocitune_core.strategies.velocitune import Velocitune
from velocitune_core.velocity import GapPolicy

STRAIGHT = ((0.0, 1.0), (1.0, 0.0))
LEAST_SHARE = 1e-9  # of a gap; the slopes of much smaller ones overflow


class PlannedCourse(Velocitune):
    """The update of Velocitune with V − c(p) in place of V, so that a run on its course keeps its initial weights.

    c_i(p) is the share of domain i's gap that is still open after the share p of the steps if the run is on plan:
    1 at p = 0, 0 at p = 1. V − c is positive for a domain that is behind.

    The default step is modest, since the course is known to a few hundredths: a domain that is behind by a tenth of its
    gap throughout the run ends with e^0.2 times the weight, and an error of 0.03 moves a weight by 6 %.

    Args:
        initial_weights: planned domain weights.
        initial_loss, target_loss: by domain, nats per token; the targets are the losses predicted for these weights.
        course: points (p, c) by domain, in order of p, the first (0, 1) and the last (1, 0); between them, the monotone
            cubic interpolation of Fritsch and Butland (1984). None: a straight line.
        gap_policy: for domains whose target is not below their initial loss: `hold` keeps their planned weight, under
            `freeze` it is only rescaled. Forgetting is part of the plan, so there is no `retain`.
        step_size, step_size_per, velocity_unit: as of Velocitune.

    Raises StrategyError for invalid options, and under gap_policy "error" for domains without a gap.
    """

    consequences: ClassVar[Mapping[GapPolicy, str]] = {
        GapPolicy.FREEZE: "they are not steered, and their weight changes as those of the others are rescaled",
        GapPolicy.HOLD: "they keep their planned weight",
    }

    def __init__(
        self,
        *,
        initial_weights: Mapping[str, float],
        initial_loss: Mapping[str, float],
        target_loss: Mapping[str, float],
        course: Mapping[str, Sequence[Sequence[float]]] | None = None,
        gap_policy: str = GapPolicy.HOLD,
        step_size: float = 2.0,
        step_size_per: Literal["update", "budget"] = "budget",
        velocity_unit: Literal["share", "nats"] = "share",
    ) -> None:
        if gap_policy == GapPolicy.RETAIN:
            raise StrategyError("gap_policy 'retain' has no planned course; choose 'hold', 'freeze' or 'error'")
        super().__init__(
            initial_weights=initial_weights,
            initial_loss=initial_loss,
            target_loss=target_loss,
            gap_policy=gap_policy,
            step_size=step_size,
            step_size_per=step_size_per,
            velocity_unit=velocity_unit,
        )
        self.depends_on_total_steps = True
        points = dict.fromkeys(self.domains, STRAIGHT) if course is None else course
        if missing := [name for name in self.domains if name not in points]:
            raise StrategyError(f"course is missing for {missing}; it has {sorted(points)}")
        self._course = [_interpolation(name, points[name]) for name in self.domains]

    def open_share(self, progress: float) -> NDArray[np.float64]:
        """Return c(p), (K,) in [0, 1]; 0 for domains without a gap."""
        planned = np.array([float(course(progress)) for course in self._course])
        return np.where(self._without_gap, 0.0, np.clip(planned, 0.0, 1.0))

    def _signal(self, velocity: NDArray[np.float64], observation: Observation) -> NDArray[np.float64]:
        return velocity - self.open_share(observation.step / observation.total_steps)


def _interpolation(name: str, points: Sequence[Sequence[float]]) -> PchipInterpolator:
    try:
        progress, share = np.array(points, dtype=float).reshape(len(points), 2).T
    except (TypeError, ValueError):
        raise StrategyError(f"course of {name} {points!r} must be points of two numbers") from None
    ends = (progress[0], share[0], progress[-1], share[-1]) == (0, 1, 1, 0)
    if not (ends and np.all(np.diff(progress) > 0) and np.all((share >= 0) & (share <= 1))):
        raise StrategyError(
            f"course of {name} {points!r} must lead from (0, 1) to (1, 0) with increasing progress and shares in [0, 1]"
        )
    return PchipInterpolator(progress, np.where(share < LEAST_SHARE, 0.0, share))
