"""Weights in, losses in, weights out: any strategy, in any loop, for any groups of examples."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from velocitune_core.strategies import BatchObservation, Observation, Strategy, make_strategy, measured_options

logger = logging.getLogger(__name__)


class ReweighterError(ValueError):
    """Losses, steps or a saved state that a reweighter cannot use."""


class VelocityReweighter:
    """Weights of groups of examples, updated from losses by a strategy.

    A group is a domain, a class, a task: whatever has a loss of its own that should fall. Losses may be in any unit, as
    long as initial losses, targets and updates share it. Groups are named by strings.

    `update` takes losses on held-out examples, every so many steps. `observe_batch` takes training losses after each
    step, for the strategies that learn from those (`odm`, `ado`, `doremi`).

    Args:
        initial_weights: w_0 by group, relative: non-negative and not all zero.
        strategy: a name of docs/STRATEGIES.md, or a class of one's own as "module:Class".
        initial_losses: held-out loss by group before the first step; `velocitune` and `planned_course` need them.
        target_losses: loss by group at which the group needs no more; `velocitune`, `planned_course` and `dbl` need
            them, and others log that they ignore them. `velocitune_core.own_loop` has functions for targets where no
            scaling law fits.
        options: of the strategy; docs/STRATEGIES.md lists them.
        total_steps: length of the training in the unit of `step`; only needed by strategies that use it (`ado`,
            `planned_course`, and `velocitune` with `step_size_per: budget`).

    Raises StrategyError for an unknown strategy, invalid options or losses that it needs and lacks, and ReweighterError
    if `total_steps` is missing or below 1, a target is of no group, or losses are given among the options, too.
    """

    def __init__(
        self,
        initial_weights: Mapping[str, float],
        *,
        strategy: str = "velocitune",
        initial_losses: Mapping[str, float] | None = None,
        target_losses: Mapping[str, float] | None = None,
        options: Mapping[str, Any] | None = None,
        total_steps: int | None = None,
    ) -> None:
        measured = _measured(strategy, initial_losses, target_losses, options or {})
        if unknown := sorted(set(target_losses or {}) - set(initial_weights)):
            raise ReweighterError(
                f"target_losses has groups {unknown} that initial_weights lacks: {[*initial_weights]}"
            )
        self._strategy = make_strategy(strategy, initial_weights=initial_weights, **measured, **(options or {}))
        if total_steps is None and self._strategy.depends_on_total_steps:
            raise ReweighterError(
                f"strategy {strategy!r} with options {dict(options or {})} needs total_steps, the length of the "
                "training in steps (or in updates, if `update` gets no step)"
            )
        if total_steps is not None and total_steps < 1:
            raise ReweighterError(f"total_steps {total_steps} must be at least 1")
        self._name, self._total_steps = strategy, total_steps
        self._updated_at, self._observed_at = 0, 0  # steps
        for warning in self._strategy.warnings:
            logger.warning(warning)

    @property
    def groups(self) -> list[str]:
        """Names of the groups, K of them, in the order of `initial_weights`."""
        return list(self._strategy.domains)

    @property
    def weights(self) -> dict[str, float]:
        """Weight by group; they sum to 1."""
        return self._by_group(self._strategy.weights)

    @property
    def velocity(self) -> dict[str, float] | None:
        """Velocity by group at the last update, in [0, 1]; None before it, and for strategies without velocities."""
        return None if self._strategy.velocity is None else self._by_group(self._strategy.velocity)

    @property
    def needs_batches(self) -> bool:
        """Whether the strategy learns from `observe_batch` alone, so that `update` changes nothing."""
        found = type(self._strategy)
        return found.update is Strategy.update and found.observe_batch is not Strategy.observe_batch

    def update(self, losses: Mapping[str, float], *, step: int | None = None) -> dict[str, float]:
        """Update from held-out losses by group, and return the new weights.

        Args:
            losses: by group; further entries are ignored.
            step: steps done in the training; None: one more than at the last update, so that steps count updates.

        Raises ReweighterError for a missing group, a loss that is not finite, or a step that is not after the last one.
        """
        step = self._updated_at + 1 if step is None else step
        if step <= self._updated_at:
            raise ReweighterError(
                f"step {step} must lie after step {self._updated_at}, where the weights were last set; what was "
                "measured before the first step belongs in initial_losses"
            )
        finite = {name: _finite(name, losses) for name in self.groups}
        self._strategy.update(
            Observation(
                step=step,
                total_steps=self._total_steps or max(step, 1),
                steps_since_update=step - self._updated_at,
                losses=finite,
            )
        )
        self._updated_at = step
        return self.weights

    def observe_batch(
        self,
        losses: Mapping[str, float],
        counts: Mapping[str, int],
        *,
        excess: Mapping[str, float] | None = None,
        step: int | None = None,
    ) -> dict[str, float]:
        """Update from the training losses of one global batch, and return the weights.

        Args:
            losses: mean training loss by group; groups that the batch lacks are left out.
            counts: examples of the batch by group, likewise.
            excess: mean of max(loss − loss of a reference model, 0) by group, for `doremi`.
            step: steps done in the training, this one included; None: one more than at the last call.

        Raises ReweighterError for an unknown group, a group that has examples and no finite loss (or excess, if that
        is given), or a step that is not after the last one.
        """
        for by_group in (losses, counts, excess or {}):
            if unknown := sorted(set(by_group) - set(self.groups)):
                raise ReweighterError(f"batch has groups {unknown} that initial_weights lacks: {self.groups}")
        for name in (name for name, count in counts.items() if count):
            for by_group in (losses,) if excess is None else (losses, excess):
                _finite(name, by_group)
        step = self._observed_at + 1 if step is None else step
        if step <= self._observed_at:
            raise ReweighterError(f"step {step} must lie after step {self._observed_at}, of the last batch observed")
        self._observed_at = step
        self._strategy.observe_batch(
            BatchObservation(
                step=self._observed_at,
                total_steps=self._total_steps or self._observed_at,
                sequences=np.array([counts.get(name, 0) for name in self.groups], dtype=np.int64),
                losses=np.array([losses.get(name, np.nan) for name in self.groups], dtype=float),
                excess=None if excess is None else np.array([excess.get(name, np.nan) for name in self.groups]),
            )
        )
        return self.weights

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-ready state."""
        return {
            "strategy": self._name,
            "updated_at": self._updated_at,
            "observed_at": self._observed_at,
            "state": self._strategy.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises ReweighterError if it is of another strategy, and StrategyError if it lacks a group.
        """
        if state["strategy"] != self._name:
            raise ReweighterError(
                f"saved state is of strategy {state['strategy']!r}, this reweighter's is {self._name!r}; build it with "
                "the same strategy"
            )
        self._strategy.load_state_dict(state["state"])
        self._updated_at, self._observed_at = int(state["updated_at"]), int(state["observed_at"])

    def _by_group(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self._strategy.domains, values.tolist(), strict=True))


def _measured(
    strategy: str,
    initial_losses: Mapping[str, float] | None,
    target_losses: Mapping[str, float] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the losses that a strategy takes, by the name of its option."""
    given = {"initial_loss": initial_losses, "target_loss": target_losses}
    given = {name: losses for name, losses in given.items() if losses is not None}
    if twice := sorted(set(given) & set(options)):
        raise ReweighterError(f"options have {twice}, which initial_losses or target_losses give, too; give them once")
    taken = measured_options(strategy)
    if "target_loss" in given and "target_loss" not in taken:
        logger.warning(f"strategy {strategy!r} takes no targets; target_losses is ignored")
    return {name: losses for name, losses in given.items() if name in taken}


def _finite(name: str, losses: Mapping[str, float]) -> float:
    if name not in losses:
        raise ReweighterError(f"losses lack group {name!r}; they have {sorted(losses)}")
    loss = float(losses[name])
    if not math.isfinite(loss):
        raise ReweighterError(f"loss of group {name!r} is {loss}; skip this update, or lower the learning rate")
    return loss
