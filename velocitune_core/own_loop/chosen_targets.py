"""Target losses where no scaling law fits: for classes, tasks, or groups too small for proxy runs.

A target says at which loss a group needs no more. One that is too low keeps its group at a large velocity to the end,
one that is too high lets its group shrink before it has learnt what it could. All functions return a loss by group,
in the unit of the losses they are given, ready for `VelocityReweighter(target_losses=…)`; labels of groups are turned
into strings, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from velocitune_core.own_loop.checks import by_group, real_number


class TargetChoiceError(ValueError):
    """Losses from which no target can be chosen."""


def targets_from_short_runs(losses: Mapping[Any, ArrayLike]) -> dict[str, float]:
    """Return the lowest held-out loss that a short run on each group alone reached.

    Train a copy of the initial model on one group at a time, for as many examples as the group will have in the
    training, and measure that group's held-out loss along the way: what the model can learn of the group if nothing
    else competes. It costs one short run per group.

    Args:
        losses: by group, the held-out losses along its own run, or the lowest of them.

    Raises TargetChoiceError for a run without losses, or a loss that is not finite.
    """
    targets = {}
    for name, along in by_group(losses, "losses", TargetChoiceError).items():
        values = np.asarray(along).ravel().tolist()
        if not values:
            raise TargetChoiceError(f"the run of group {name!r} has no losses; measure at least one")
        targets[name] = min(_finite(f"loss of the run of {name!r}", value) for value in values)
    return targets


def targets_from_best_known(initial_losses: Mapping[Any, float], best: float | Mapping[Any, float]) -> dict[str, float]:
    """Return a known best value for each group: of a published model, of people, or a bound such as the label noise.

    Args:
        initial_losses: by group, before the first step.
        best: one value for all groups, or by group.

    Raises TargetChoiceError if a group has no best value, a value is not finite, or none lies below its initial loss.
    """
    initial = _losses(initial_losses)
    targets = _of_each(best, "best", initial)
    if not any(targets[name] < loss for name, loss in initial.items()):
        raise TargetChoiceError(
            f"best {targets} lies below no initial loss {initial}; every group is at its target already: give lower "
            "values"
        )
    return targets


def targets_from_initial_losses(
    initial_losses: Mapping[Any, float], share: float, *, floor: float | Mapping[Any, float] = 0.0
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
    if not 0 < real_number("share", share, TargetChoiceError, "give one in (0, 1)") < 1:
        raise TargetChoiceError(f"share {share} must be in (0, 1): the part of the initial loss that may remain")
    initial = _losses(initial_losses)
    least = _of_each(floor, "floor", initial)
    for name, loss in initial.items():
        if loss <= least[name]:
            raise TargetChoiceError(
                f"initial loss {loss} of group {name!r} must be above its floor {least[name]}; give a lower floor"
            )
    return {name: least[name] + share * (loss - least[name]) for name, loss in initial.items()}


def _losses(initial_losses: Mapping[Any, float]) -> dict[str, float]:
    """Return the initial losses by name of their group, all finite."""
    named = by_group(initial_losses, "initial_losses", TargetChoiceError)
    return {name: _finite(f"initial loss of {name!r}", loss) for name, loss in named.items()}


def _of_each(values: Any, field: str, groups: Mapping[str, float]) -> dict[str, float]:
    """Return a finite value for each group: its own, or the one of all."""
    if not hasattr(values, "items"):
        return dict.fromkeys(groups, _finite(field, values))
    named = by_group(values, field, TargetChoiceError)
    if missing := [name for name in groups if name not in named]:
        raise TargetChoiceError(f"{field} lacks groups {missing}; it has {sorted(named)}")
    return {name: _finite(f"{field} of {name!r}", named[name]) for name in groups}


def _finite(what: str, value: Any) -> float:
    return real_number(what, value, TargetChoiceError, "measure it again")
