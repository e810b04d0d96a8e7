"""Target losses where no scaling law fits: for classes, tasks, or groups too small for proxy runs.

A target says at which loss a group needs no more. One that is too low keeps its group at a large velocity to the end,
one that is too high lets its group shrink before it has learnt what it could. All functions return a loss by group,
in the unit of the losses they are given, ready for `VelocityReweighter(target_losses=…)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike


class TargetChoiceError(ValueError):
    """Losses from which no target can be chosen."""


def targets_from_short_runs(losses: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Return the lowest held-out loss that a short run on each group alone reached.

    Train a copy of the initial model on one group at a time, for as many examples as the group will see in the
    training, and measure that group's held-out loss along the way: what the model can learn of the group if nothing
    else competes. It costs one short run per group.

    Args:
        losses: by group, the held-out losses along its own run, or the lowest of them.

    Raises TargetChoiceError for a run without losses, or a loss that is not finite.
    """
    targets = {}
    for name, along in losses.items():
        values = np.asarray(along, dtype=float).ravel().tolist()
        if not values:
            raise TargetChoiceError(f"the run of group {name!r} has no losses; measure at least one")
        targets[name] = min(_finite(f"loss of the run of {name!r}", value) for value in values)
    return targets


def targets_from_best_known(initial_losses: Mapping[str, float], best: float | Mapping[str, float]) -> dict[str, float]:
    """Return a known best value for each group: of a published model, of people, or a bound such as the label noise.

    Args:
        initial_losses: by group, before the first step.
        best: one value for all groups, or by group.

    Raises TargetChoiceError if a group has no best value, a value is not finite, or none lies below its initial loss.
    """
    targets = {}
    for name in initial_losses:
        if isinstance(best, Mapping) and name not in best:
            raise TargetChoiceError(f"best lacks group {name!r}; it has {sorted(best)}")
        targets[name] = _finite(f"best of {name!r}", best[name] if isinstance(best, Mapping) else best)
    if not any(targets[name] < loss for name, loss in initial_losses.items()):
        raise TargetChoiceError(
            f"best {targets} lies below no initial loss {dict(initial_losses)}; every group is at its target already: "
            "give lower values"
        )
    return targets


def targets_from_initial_losses(
    initial_losses: Mapping[str, float], share: float, *, floor: float | Mapping[str, float] = 0.0
) -> dict[str, float]:
    """Return floor + share · (initial loss − floor): the same relative progress is wanted of every group.

    It needs no run at all, and assumes that every group can lose the same share of its loss. Where groups differ in
    difficulty, easy ones reach such targets first, and hard ones grow: choose it where that is what is wanted.

    Args:
        initial_losses: by group, before the first step.
        share: of the initial loss that may remain, in (0, 1).
        floor: a loss that cannot be passed, one for all groups or by group, such as the entropy of noisy labels.

    Raises TargetChoiceError for a share outside (0, 1), or an initial loss that is not above the floor.
    """
    if not 0 < share < 1:
        raise TargetChoiceError(f"share {share} must be in (0, 1): the part of the initial loss that may remain")
    targets = {}
    for name, value in initial_losses.items():
        if isinstance(floor, Mapping) and name not in floor:
            raise TargetChoiceError(f"floor lacks group {name!r}; it has {sorted(floor)}")
        loss = _finite(f"initial loss of {name!r}", value)
        least = _finite(f"floor of {name!r}", floor[name] if isinstance(floor, Mapping) else floor)
        if loss <= least:
            raise TargetChoiceError(
                f"initial loss {loss} of group {name!r} must be above its floor {least}; give a lower floor"
            )
        targets[name] = least + share * (loss - least)
    return targets


def _finite(what: str, value: float) -> float:
    if not math.isfinite(value):
        raise TargetChoiceError(f"{what} is {value}, but must be finite; measure it again")
    return float(value)
