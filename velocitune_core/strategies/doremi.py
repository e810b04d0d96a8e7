"""DoReMi: minimise the worst-case excess loss over a reference model (Xie et al., 2023, arXiv 2305.10429)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from velocitune_core.strategies.base import BatchObservation, Strategy, StrategyError
from velocitune_core.velocity import update_weights


class DoReMi(Strategy):
    """Weights found in a search run with a trained reference model; the mean weights of the run are the result.

    At every batch, with ℓ the training loss of a token (algorithm 1 of the paper):

        λ_i = mean over the tokens of domain i of max(ℓ − ℓ_reference, 0); a domain that is absent keeps its last λ
        w ∝ w · exp(η · λ)
        w = (1 − c) · w + c / K
        result: the mean of w over all steps, which the search run records for every strategy

    Difference to the paper: there every batch of the search is drawn uniformly over the domains and the loss is
    reweighted by w; here the batch itself is drawn with weights w. Both give every domain the same expected share of
    the gradient. Drawing with w spends no compute on sequences of little weight, but a domain of small w is observed
    less often, so its λ is older and noisier.

    The public code (sangmichaelxie/doremi) starts λ at log(vocabulary size) instead of 0; it divides w by the
    sampling shares where these are not uniform. The paper starts at uniform weights, here at `initial_weights`.

    Args:
        step_size: η.
        smoothing: c.
    """

    needs_reference: ClassVar[bool] = True
    depends_on_total_steps = False

    def __init__(
        self,
        *,
        initial_weights: Mapping[str, float],
        step_size: float = 1.0,
        smoothing: float = 1e-3,
    ) -> None:
        super().__init__(initial_weights=initial_weights)
        if not (0 <= step_size < math.inf and 0 <= smoothing <= 1):
            raise StrategyError(f"step_size {step_size} must be at least 0 and finite, smoothing {smoothing} in [0, 1]")
        self._step_size, self._smoothing = step_size, smoothing
        self._excess = np.zeros(len(self.domains))  # λ

    def observe_batch(self, batch: BatchObservation) -> None:
        if batch.excess is None:
            raise StrategyError(
                "doremi needs the excess loss over a reference model, and this run has no reference model; use it in a "
                "search run with a trained reference model, or choose another strategy"
            )
        self._excess = np.where(np.isfinite(batch.excess), np.maximum(batch.excess, 0.0), self._excess)
        self.weights = update_weights(self.weights, self._excess, step_size=self._step_size, smoothing=self._smoothing)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "excess": dict(zip(self.domains, self._excess.tolist(), strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._excess = self.vector(state["excess"], "excess of the saved state")
