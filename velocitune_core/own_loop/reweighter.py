"""Weights in, losses in, weights out: any strategy, in any loop, for any groups of examples."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from velocitune_core.mixture.sampler import WEIGHT_SUM_TOLERANCE
from velocitune_core.own_loop.checks import ReweighterError, by_group, real_number, whole_number
from velocitune_core.own_loop.strategy_inputs import strategy_of
from velocitune_core.strategies import BatchObservation, Observation, Strategy

logger = logging.getLogger(__name__)
STATE = ("strategy", "updated_at", "observed_at", "state")


class VelocityReweighter:
    """Weights of groups of examples, updated from losses by a strategy.

    A group is a domain, a class, a task: whatever has a loss of its own that should fall. Losses may be in any unit, as
    long as initial losses, targets and updates share it. Labels of groups are turned into strings, as in
    MixtureBatchSampler: 0, numpy's 0 and "0" are one group.

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

    Raises ReweighterError for a weight, loss or option that is no number (NaN included), losses that the strategy needs
    and lacks, targets of no group, losses that are among the options as well, and a `total_steps` that is missing or
    below 1; StrategyError for an unknown strategy, and for weights or options outside their range.
    """

    def __init__(
        self,
        initial_weights: Mapping[Any, float],
        *,
        strategy: str = "velocitune",
        initial_losses: Mapping[Any, float] | None = None,
        target_losses: Mapping[Any, float] | None = None,
        options: Mapping[str, Any] | None = None,
        total_steps: int | None = None,
    ) -> None:
        losses = {"initial_loss": initial_losses, "target_loss": target_losses}
        self._strategy = strategy_of(strategy, initial_weights, losses, options or {})
        if total_steps is not None:
            total_steps = whole_number("total_steps", total_steps, ReweighterError, least=1)
        elif self._strategy.depends_on_total_steps:
            raise ReweighterError(
                f"strategy {strategy!r} with options {dict(options or {})} needs total_steps, the length of the "
                "training in steps (or in updates, if `update` gets no step)"
            )
        self._name, self._total_steps = strategy, total_steps
        self._updated_at, self._observed_at = 0, 0  # steps
        self._warned: set[str] = set()  # methods that were called in vain
        self._check_weights()
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
    def updated_at(self) -> int:
        """Step of the last update, 0 before the first one: a loop that resumes goes on towards the update after it."""
        return self._updated_at

    @property
    def needs_batches(self) -> bool:
        """Whether the strategy learns from `observe_batch` alone, so that `update` changes nothing."""
        return self._uses("observe_batch") and not self._uses("update")

    def update(self, losses: Mapping[Any, float], *, step: int | None = None) -> dict[str, float]:
        """Update from held-out losses by group, and return the new weights.

        Args:
            losses: by group; further entries are ignored.
            step: steps done in the training; None: one more than at the last update, so that steps count updates.

        Under a strategy that learns from batches alone it changes no weight, and a warning is logged once.

        Raises ReweighterError for a missing group, a loss that is not finite, a step that is not after the last one, or
        weights of a strategy of one's own that are no distribution.
        """
        step = self._updated_at + 1 if step is None else whole_number("step", step, ReweighterError)
        if step <= self._updated_at:
            raise ReweighterError(
                f"step {step} must lie after step {self._updated_at}, where the weights were last set; what was "
                "measured before the first step belongs in initial_losses"
            )
        losses = by_group(losses, "losses", ReweighterError)
        finite = {name: _finite(name, losses) for name in self.groups}
        if self.needs_batches:
            self._warn_once("update", "observe_batch(losses, counts) after every step")
        before = self._strategy.weights.copy()
        self._strategy.update(
            Observation(
                step=step,
                total_steps=self._total_steps or max(step, 1),
                steps_since_update=step - self._updated_at,
                losses=finite,
            )
        )
        self._check_weights(before)
        self._updated_at = step
        return self.weights

    def observe_batch(
        self,
        losses: Mapping[Any, float],
        counts: Mapping[Any, int],
        *,
        excess: Mapping[Any, float] | None = None,
        step: int | None = None,
    ) -> dict[str, float]:
        """Update from the training losses of one global batch, and return the weights.

        Under a strategy that learns from held-out losses alone it changes no weight, and a warning is logged once.

        Args:
            losses: mean training loss by group; groups that the batch lacks are left out.
            counts: examples of the batch by group, likewise.
            excess: mean of max(loss − loss of a reference model, 0) by group, for `doremi`.
            step: steps done in the training, this one included; None: one more than at the last call.

        Raises ReweighterError for an unknown group, a group that has examples and no finite loss (or excess, if that
        is given or needed), counts that are no integers, a step that is not after the last one, or weights of a
        strategy of one's own that are no distribution.
        """
        if excess is None and self._strategy.needs_reference:
            raise ReweighterError(
                f"strategy {self._name!r} needs excess: give observe_batch(…, excess=…) the mean of max(loss − loss of "
                "a reference model, 0) by group"
            )
        step = self._observed_at + 1 if step is None else whole_number("step", step, ReweighterError)
        if step <= self._observed_at:
            raise ReweighterError(f"step {step} must lie after step {self._observed_at}, of the last batch observed")
        batch = self._batch(losses, counts, excess, step)
        if self._uses("update") and not self._uses("observe_batch"):
            self._warn_once("observe_batch", "update(losses) after evaluations on held-out examples")
        before = self._strategy.weights.copy()
        self._strategy.observe_batch(batch)
        self._check_weights(before)
        self._observed_at = step
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
        """Restore a saved state; one that is refused changes nothing.

        Raises ReweighterError if it is of another strategy or other groups, or no state of a reweighter.
        """
        fix = "give what state_dict() returned"
        state = dict(state) if isinstance(state, Mapping) else {}
        if missing := [key for key in STATE if key not in state]:
            raise ReweighterError(f"saved state lacks {missing}; it has {[*state]}: {fix}")
        if state["strategy"] != self._name:
            raise ReweighterError(
                f"saved state is of strategy {state['strategy']!r}, this reweighter's is {self._name!r}; build it with "
                "the same strategy"
            )
        updated_at, observed_at = (
            whole_number(f"{key} of the saved state", state[key], ReweighterError, fix=fix)
            for key in ("updated_at", "observed_at")
        )
        before = self._strategy.state_dict()
        try:
            saved = state["state"].get("weights")  # a strategy of one's own may keep them in another way
            if isinstance(saved, Mapping) and set(saved) != set(self.groups):
                raise ReweighterError(f"it has groups {sorted(saved)}, this reweighter has {sorted(self.groups)}")
            self._strategy.load_state_dict(state["state"])
            self._check_weights()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._strategy.load_state_dict(before)
            reason = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ReweighterError(
                f"saved state of strategy {self._name!r} cannot be loaded: {reason}; {fix}, of a "
                "reweighter of the same groups"
            ) from None
        self._updated_at, self._observed_at = updated_at, observed_at

    def _batch(
        self, losses: Mapping[Any, Any], counts: Mapping[Any, Any], excess: Mapping[Any, Any] | None, step: int
    ) -> BatchObservation:
        """Return a batch as strategies take it, all its numbers checked."""
        losses, counts = self._of_groups(losses, "losses"), self._of_groups(counts, "counts")
        excess = None if excess is None else self._of_groups(excess, "excess")
        for name, count in counts.items():
            counts[name] = whole_number(f"counts[{name!r}]", count, ReweighterError)
            for each in (losses,) if excess is None else (losses, excess):
                if counts[name]:
                    each[name] = _finite(name, each)
        return BatchObservation(
            step=step,
            total_steps=self._total_steps or step,
            sequences=np.array([counts.get(name, 0) for name in self.groups], dtype=np.int64),
            losses=np.array([losses.get(name, np.nan) for name in self.groups], dtype=float),
            excess=None
            if excess is None
            else np.array([excess.get(name, np.nan) for name in self.groups], dtype=float),
        )

    def _uses(self, method: str) -> bool:
        """Whether the strategy does anything in `update` or `observe_batch`."""
        return getattr(type(self._strategy), method) is not getattr(Strategy, method)

    def _warn_once(self, method: str, instead: str) -> None:
        """Log that a method changes no weight."""
        if method not in self._warned:
            self._warned.add(method)
            logger.warning(f"{method} changes no weight under strategy {self._name!r}: call {instead}")

    def _of_groups(self, values: Mapping[Any, Any], field: str) -> dict[str, Any]:
        """Return values by name of their group; refuse those of no group."""
        named = by_group(values, field, ReweighterError)
        if unknown := sorted(set(named) - set(self.groups)):
            raise ReweighterError(
                f"{field} of the batch have groups {unknown} that initial_weights lacks: {self.groups}"
            )
        return named

    def _check_weights(self, before: np.ndarray | None = None) -> None:
        """Refuse weights that are no distribution over the groups, and go back to those of before."""
        weights = np.asarray(self._strategy.weights, dtype=float)
        sums_to_one = abs(weights.sum() - 1) <= WEIGHT_SUM_TOLERANCE  # False for NaN
        if weights.shape == (len(self.groups),) and weights.min() >= 0 and sums_to_one:
            return
        if before is not None:
            self._strategy.weights = before
        raise ReweighterError(
            f"strategy {self._name!r} set the weights {weights.tolist()} of {self.groups}; correct it so that they are "
            f"{len(self.groups)} finite, non-negative numbers that sum to 1"
        )

    def _by_group(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.groups, np.asarray(values, dtype=float).tolist(), strict=True))


def _finite(name: str, losses: Mapping[str, Any]) -> float:
    """Return the loss of a group."""
    if name not in losses:
        raise ReweighterError(f"losses lack group {name!r}; they have {sorted(losses)}")
    fix = "skip this update, or lower the learning rate"
    return real_number(f"loss of group {name!r}", losses[name], ReweighterError, fix)
