"""Dynamic batch loading of Sheared LLaMA (Xia et al., 2023, arXiv 2310.06694, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from velocitune_core.strategies.base import Observation, Strategy, StrategyError
from velocitune_core.velocity import update_weights


class DynamicBatchLoading(Strategy):
    """More of every batch to the domains whose held-out loss lies furthest above its target, in nats.

    At every evaluation, with ℓ the held-out loss:

        d = max(ℓ − ℓ_target, 0)
        w ∝ w · exp(η · d)
        w = (1 − c) · w + c / K

    The paper clamps d at 0 and does not smooth. The public code (princeton-nlp/LLM-Shearing) does not clamp, so that
    domains below their target lose weight faster, and smooths with c = 1e-4. A domain whose loss is not finite counts
    as d = 0.

    Args:
        target_loss: by domain, nats per token.
        step_size: η.
        smoothing: c.
        clamp: d is cut at 0 (the paper) or may be negative (its code).
    """

    depends_on_total_steps = False

    def __init__(
        self,
        *,
        initial_weights: Mapping[str, float],
        target_loss: Mapping[str, float],
        step_size: float = 1.0,
        smoothing: float = 1e-4,
        clamp: bool = True,
    ) -> None:
        super().__init__(initial_weights=initial_weights)
        if not (0 <= step_size < math.inf and 0 <= smoothing <= 1):
            raise StrategyError(f"step_size {step_size} must be at least 0 and finite, smoothing {smoothing} in [0, 1]")
        self._target_loss = self.vector(target_loss, "target_loss")
        if not np.all(np.isfinite(self._target_loss)):
            raise StrategyError(f"target_loss {dict(target_loss)} must be finite")
        self._step_size, self._smoothing, self._clamp = step_size, smoothing, clamp

    def update(self, observation: Observation) -> NDArray[np.float64]:
        distance = self.vector(observation.losses, "held-out loss") - self._target_loss
        distance = np.where(np.isfinite(distance), distance, 0.0)
        if self._clamp:
            distance = np.maximum(distance, 0.0)
        self.weights = update_weights(self.weights, distance, step_size=self._step_size, smoothing=self._smoothing)
        return self.weights
