"""Held-out losses and domain weights of a run, by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velocitune_core.contracts import LossPoint, Overfitting, WeightPoint, overfitted_domains


class History:
    """Held-out losses at evaluations, domain weights after each of them, and the mean weights over all steps.

    Args:
        domains: names, in the order of every array (K,).
        weights: (K,) domain weights before the first step.
    """

    def __init__(self, domains: Sequence[str], weights: NDArray[np.float64]) -> None:
        self._domains = list(domains)
        self._weight_sum = np.zeros(len(self._domains))
        self.points: list[LossPoint] = []
        self.weights = [WeightPoint(step=0, tokens=0, weights=self._by_domain(weights))]

    def add_step(self, weights: NDArray[np.float64]) -> None:
        """Record a step whose batch was sampled with domain weights (K,)."""
        self._weight_sum += weights

    def add_losses(self, step: int, tokens: int, losses: Mapping[str, float]) -> None:
        """Record the held-out losses after a step, in nats per token."""
        self.points.append(LossPoint(step=step, tokens=tokens, losses=dict(losses)))

    def newly_overfitted(self, epochs: Mapping[str, float]) -> dict[str, Overfitting]:
        """Return the domains that the last evaluation is the first to find overfitted.

        Args:
            epochs: of each domain's text so far.
        """
        found = overfitted_domains(self.points, self.weights)
        return {
            name: each.model_copy(update={"epochs": epochs[name]})
            for name, each in found.items()
            if self.evaluated_at(each.step)
        }

    def add_weights(
        self, step: int, tokens: int, weights: NDArray[np.float64], velocity: NDArray[np.float64] | None
    ) -> WeightPoint:
        """Record the domain weights (K,) in use after a step, and the velocity (K,) they follow from; return both."""
        by_domain = None if velocity is None else self._by_domain(velocity)
        point = WeightPoint(step=step, tokens=tokens, weights=self._by_domain(weights), velocity=by_domain)
        self.weights.append(point)
        return point

    def evaluated_at(self, step: int) -> bool:
        """Return whether the last held-out losses are those after `step`."""
        return bool(self.points) and self.points[-1].step == step

    @property
    def mean_weights(self) -> dict[str, float]:
        """Mean domain weights over all steps."""
        return self._by_domain(self._weight_sum / max(self._weight_sum.sum(), 1.0))

    def state_dict(self) -> dict[str, Any]:
        """Return everything recorded, JSON-ready."""
        return {
            "points": [point.model_dump() for point in self.points],
            "weights": [point.model_dump() for point in self.weights],
            "weight_sum": self._by_domain(self._weight_sum),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.points = [LossPoint.model_validate(point) for point in state["points"]]
        self.weights = [WeightPoint.model_validate(point) for point in state["weights"]]
        self._weight_sum = np.array([state["weight_sum"][name] for name in self._domains])

    def _by_domain(self, values: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self._domains, values.tolist(), strict=True))
