"""Velocitune: weights that follow the learning velocity (Luo et al., 2025, arXiv 2411.14318, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from velocitune_core.strategies.base import Observation, Strategy, StrategyError, check_choice
from velocitune_core.velocity import GapPolicy, forgetting_velocity, learning_velocity, update_weights


class Velocitune(Strategy):
    """More of every batch to the domains that are slow relative to their target. Default options are the paper's.

    Args:
        initial_weights: initial domain weights w_0.
        initial_loss, target_loss: by domain, nats per token.
        gap_policy: for domains whose target is not below their initial loss; see GapPolicy.
        step_size: η of the update.
        step_size_per: "update" applies η at every update (the paper); "budget" applies η · m / total steps at each
            update, where m is the steps between updates, so that m does not change how far the weights can move.
        smoothing: c of the uniform mixing after each update.
        retain_scale: under `retain`, the increase over the initial loss that counts as velocity 1, as a share of it.
        velocity_unit: "share" of the gap still open (the paper), or the remaining "nats" in units of the mean gap. A
            share does not depend on the width of the gap: 4 nats and 0.4 nats to the target count alike.
        initial_temperature: start from w ∝ w_0^(1/T) instead of w_0; the paper uses 1.

    Raises StrategyError for invalid options, and under gap_policy "error" for domains without a gap.
    """

    consequences: ClassVar[Mapping[GapPolicy, str]] = {  # of a domain without a gap
        GapPolicy.FREEZE: "their velocity is 0 and their weight shrinks at every update",
        GapPolicy.HOLD: "they keep their initial weight",
        GapPolicy.RETAIN: "their weight grows as their loss rises above the initial loss",
    }

    def __init__(
        self,
        *,
        initial_weights: Mapping[str, float],
        initial_loss: Mapping[str, float],
        target_loss: Mapping[str, float],
        gap_policy: str = GapPolicy.FREEZE,
        step_size: float = 1.0,
        step_size_per: Literal["update", "budget"] = "update",
        smoothing: float = 0.0,
        retain_scale: float = 0.05,
        velocity_unit: Literal["share", "nats"] = "share",
        initial_temperature: float = 1.0,
    ) -> None:
        super().__init__(initial_weights=initial_weights)
        check_choice("gap_policy", gap_policy, [str(each) for each in GapPolicy])
        check_choice("step_size_per", step_size_per, ("update", "budget"))
        check_choice("velocity_unit", velocity_unit, ("share", "nats"))
        if not (0 <= step_size < math.inf and 0 <= smoothing <= 1 and retain_scale > 0 and initial_temperature > 0):
            raise StrategyError(
                f"step_size {step_size} must be at least 0 and finite, retain_scale {retain_scale} and "
                f"initial_temperature {initial_temperature} above 0, smoothing {smoothing} in [0, 1]"
            )
        self._policy = GapPolicy(gap_policy)
        self._initial_loss = self.vector(initial_loss, "initial_loss")
        self._target_loss = self.vector(target_loss, "target_loss")
        self._step_size, self._per_budget, self._smoothing = step_size, step_size_per == "budget", smoothing
        self.depends_on_total_steps = self._per_budget
        self._retain_scale = retain_scale
        self._without_gap = self._target_loss >= self._initial_loss  # (K,)
        self._push = self._push_per_velocity(velocity_unit)  # (K,)
        self.weights = self.initial_weights ** (1 / initial_temperature)
        self.weights /= self.weights.sum()
        self._report_missing_gaps()

    def update(self, observation: Observation) -> NDArray[np.float64]:
        loss = self.vector(observation.losses, "held-out loss")
        self.velocity = self._velocity(loss)
        step_size = self._step_size
        if self._per_budget:
            step_size *= observation.steps_since_update / observation.total_steps
        push = self._signal(self.velocity, observation) * self._push
        updated = update_weights(self.weights, push, step_size=step_size, smoothing=self._smoothing)
        if self._policy is GapPolicy.HOLD:
            updated = self._hold(updated)
        self.weights = updated
        return updated

    def _signal(self, velocity: NDArray[np.float64], observation: Observation) -> NDArray[np.float64]:
        """Return what weights follow, (K,): more to domains where it is larger."""
        return velocity

    def _velocity(self, loss: NDArray[np.float64]) -> NDArray[np.float64]:
        velocity = learning_velocity(loss, self._initial_loss, self._target_loss)
        if self._policy is GapPolicy.RETAIN:
            forgetting = forgetting_velocity(loss, self._initial_loss, self._retain_scale)
            velocity = np.where(self._without_gap, forgetting, velocity)
        return velocity

    def _push_per_velocity(self, unit: str) -> NDArray[np.float64]:
        """Return the factor on each velocity, (K,): 1, or the width of the gap over the mean gap."""
        if unit == "share" or self._without_gap.all():
            return np.ones_like(self._initial_loss)
        gap = self._initial_loss - self._target_loss
        width = np.where(self._without_gap, self._retain_scale * self._initial_loss, gap)
        return width / gap[~self._without_gap].mean()

    def _hold(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reset held domains to their initial weight; scale the others to the rest."""
        held = np.where(self._without_gap, self.initial_weights, 0.0)
        free = np.where(self._without_gap, 0.0, weights)
        if free.sum() == 0:
            return self.initial_weights.copy()
        return held + free / free.sum() * (1.0 - held.sum())

    def _report_missing_gaps(self) -> None:
        """Raise under gap policy "error"; otherwise add a warning that names the domains."""
        if not self._without_gap.any():
            return
        facts = ", ".join(
            f"{name} (target {self._target_loss[i]:.3f}, initial {self._initial_loss[i]:.3f})"
            for i, name in enumerate(self.domains)
            if self._without_gap[i]
        )
        if self._policy is GapPolicy.ERROR:
            raise StrategyError(
                f"target not below initial loss: {facts}; set gap_policy to 'hold', 'retain' or 'freeze', or set a "
                "lower target for the domain in targets.json"
            )
        consequence = self.consequences[self._policy]
        self.warnings.append(f"target not below initial loss: {facts}; gap policy {self._policy}: {consequence}")
