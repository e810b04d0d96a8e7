"""Strategies that never change their weights: the frontier that a dynamic one has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from velocitune_core.strategies.base import Observation, Strategy, StrategyError


class Static(Strategy):
    """w = w_0 throughout."""

    def update(self, observation: Observation) -> NDArray[np.float64]:
        return self.weights


class Uniform(Static):
    """w = 1/K."""

    def __init__(self, *, initial_weights: Mapping[str, float]) -> None:
        super().__init__(initial_weights=initial_weights)
        self.weights = np.full(len(self.domains), 1 / len(self.domains))


class Temperature(Static):
    """w ∝ w_0^(1/T): T = 1 is static, T → ∞ uniform (Conneau et al., 2020, section 3.1)."""

    def __init__(self, *, initial_weights: Mapping[str, float], temperature: float = 2.0) -> None:
        super().__init__(initial_weights=initial_weights)
        if not temperature > 0:
            raise StrategyError(f"temperature {temperature} must be above 0")
        self.weights = self.initial_weights ** (1 / temperature)
        self.weights /= self.weights.sum()
