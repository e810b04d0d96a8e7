"""Strategies with constant weights: the frontier that a dynamic strategy has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from velocitune_core.strategies.base import Strategy, StrategyError


class Static(Strategy):
    """w = w_0."""

    depends_on_total_steps = False


class Uniform(Strategy):
    """w = 1/K."""

    depends_on_total_steps = False

    def __init__(self, *, initial_weights: Mapping[str, float]) -> None:
        super().__init__(initial_weights=initial_weights)
        self.weights = np.full(len(self.domains), 1 / len(self.domains))


class Temperature(Strategy):
    """w ∝ n^(1/T), n = tokens of the domain: T = 1 is by size, T → ∞ uniform (Conneau et al., 2020, section 3.1).

    Args:
        temperature: T > 0.
        domain_tokens: n by domain; None: the initial domain weights.
    """

    depends_on_total_steps = False

    def __init__(
        self,
        *,
        initial_weights: Mapping[str, float],
        temperature: float = 2.0,
        domain_tokens: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(initial_weights=initial_weights)
        if not temperature > 0:
            raise StrategyError(f"temperature {temperature} must be above 0")
        tokens = self.vector(domain_tokens or initial_weights, "domain_tokens")
        self.weights = (tokens / tokens.sum()) ** (1 / temperature)
        self.weights /= self.weights.sum()
