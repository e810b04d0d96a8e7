"""What a run went through: held-out losses and weights over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velocitune_core.contracts import LossPoint, WeightPoint


class History:
    """Held-out losses at evaluations, weights after each of them, and the mean of the weights of all steps."""

    def __init__(self, domains: Sequence[str], weights: NDArray[np.float64]) -> None:
        self._domains = list(domains)
        self._weight_sum = np.zeros(len(self._domains))
        self.points: list[LossPoint] = []
        self.weights = [WeightPoint(step=0, tokens=0, weights=self._by_domain(weights))]

    def add_step(self, weights: NDArray[np.float64]) -> None:
        """A step whose batch was drawn with `weights` (K,)."""
        self._weight_sum += weights

    def add_losses(self, step: int, tokens: int, losses: Mapping[str, float]) -> None:
        self.points.append(LossPoint(step=step, tokens=tokens, losses=dict(losses)))

    def add_weights(
        self, step: int, tokens: int, weights: NDArray[np.float64], velocity: NDArray[np.float64] | None
    ) -> WeightPoint:
        by_domain = None if velocity is None else self._by_domain(velocity)
        point = WeightPoint(step=step, tokens=tokens, weights=self._by_domain(weights), velocity=by_domain)
        self.weights.append(point)
        return point

    def evaluated_at(self, step: int) -> bool:
        """Whether the last held-out losses are those after `step`."""
        return bool(self.points) and self.points[-1].step == step

    @property
    def mean_weights(self) -> dict[str, float]:
        return self._by_domain(self._weight_sum / max(self._weight_sum.sum(), 1.0))

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "points": [point.model_dump() for point in self.points],
            "weights": [point.model_dump() for point in self.weights],
            "weight_sum": self._by_domain(self._weight_sum),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.points = [LossPoint.model_validate(point) for point in state["points"]]
        self.weights = [WeightPoint.model_validate(point) for point in state["weights"]]
        self._weight_sum = np.array([state["weight_sum"][name] for name in self._domains])

    def _by_domain(self, values: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self._domains, values.tolist(), strict=True))
