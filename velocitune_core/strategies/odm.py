"""Online data mixing: domains as arms of a bandit, their training loss as reward (Albalak et al., arXiv 2312.02406)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from velocitune_core.strategies.base import BatchObservation, Strategy, StrategyError, check_choice

LARGEST_REWARD = 1e300  # bound on ℓ / w, so that sums of it stay finite


class OnlineDataMixing(Strategy):
    """More of every batch to the domains of high training loss, with an exploration that decays.

    At the batch of step t, with ℓ_i the training loss of domain i in it:

        ε_t = min(1/K, √(ln K / (K · t)))
        form "reward":  R_i = α · R_i + (1 − α) · exp(ℓ_i)
                        w = (1 − K·ε_t) · R / ΣR + ε_t
        form "exp3":    R_i = α · R_i + (1 − α) · ℓ_i / w_i
                        w = (1 − K·ε_t) · softmax(ε_{t−1} · R) + ε_t

    R starts at 0. "exp3" is the algorithm that the paper prints. "reward" is the public code
    (alon-albalak/online-data-mixing), whose README names its class SmoothedMeanWeightUpdater as the implementation of
    the paper: no division by w_i, perplexity instead of loss, shares in proportion instead of a softmax. (The code
    also has a class of plain EXP3, which sums ℓ / (10 · w) without forgetting.) In "exp3" R does not grow with t while
    ε_{t−1} shrinks, so that w returns to uniform in a long run; "reward" tends to shares of perplexity.

    While t ≤ K · ln K, K · ε is 1 and w is uniform, whatever the initial weights (K = 6: 10 steps; K = 1,000: 6,907).
    A domain of initial weight 0 is explored as well.

    Args:
        form: see above.
        decay: α.
        warmup_steps: steps with the initial weights, in which R is updated already; the public code does not update it.
    """

    depends_on_total_steps = False

    def __init__(
        self,
        *,
        initial_weights: Mapping[str, float],
        form: Literal["reward", "exp3"] = "reward",
        decay: float = 0.9,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(initial_weights=initial_weights)
        check_choice("form", form, ("reward", "exp3"))
        if not (0 <= decay < 1 and 0 <= warmup_steps < math.inf):
            raise StrategyError(f"decay {decay} must be in [0, 1), warmup_steps {warmup_steps} at least 0")
        self._exp3, self._decay, self._warmup_steps = form == "exp3", decay, warmup_steps
        # exp(ℓ) overflows from ℓ = 710 on, so the reward form keeps log R; its R = 0 is log R = −∞
        self._reward = np.full(len(self.domains), 0.0 if self._exp3 else -np.inf)

    def observe_batch(self, batch: BatchObservation) -> None:
        present = np.isfinite(batch.losses)
        if self._exp3:
            drawn = present & (self.weights > 0)  # ℓ / w is undefined for w = 0
            self._reward = np.where(drawn, self._importance_weighted(batch.losses), self._reward)
        else:
            self._reward = np.where(present, self._smoothed(batch.losses), self._reward)
        if batch.step <= self._warmup_steps or not np.any(np.isfinite(self._reward)):
            return
        exploration = self._exploration(batch.step)
        logits = self._exploration(batch.step - 1) * self._reward if self._exp3 else self._reward
        shares = np.exp(logits - logits.max())
        self.weights = (1 - len(self.domains) * exploration) * shares / shares.sum() + exploration

    def _exploration(self, step: int) -> float:
        """Return ε_t; ε_0 is 1/K."""
        count = len(self.domains)
        return min(1 / count, math.sqrt(math.log(count) / (count * step))) if step else 1 / count

    def _smoothed(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log(α · R + (1 − α) · exp(ℓ))."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.logaddexp(np.log(self._decay) + self._reward, math.log1p(-self._decay) + losses)

    def _importance_weighted(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return α · R + (1 − α) · ℓ / w."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            reward = np.minimum(losses / self.weights, LARGEST_REWARD)
        return self._decay * self._reward + (1 - self._decay) * reward

    def state_dict(self) -> dict[str, Any]:
        finite = [value if math.isfinite(value) else None for value in self._reward.tolist()]  # JSON has no infinity
        return {**super().state_dict(), "reward": dict(zip(self.domains, finite, strict=True))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        reward = {name: -np.inf if value is None else value for name, value in state["reward"].items()}
        self._reward = self.vector(reward, "reward of the saved state")
