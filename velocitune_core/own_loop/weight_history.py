"""Which weights each step is drawn with: the changes that were set so far, past and to come."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture import MixtureError
from velocitune_core.own_loop.checks import by_group, real_number

_STEP = itemgetter(0)
Changes = OrderedDict[int, dict[str, float]]  # step → weights by group; unlike a dict, it can be referred to weakly


class WeightHistory:
    """Weights of K groups by the step from which on they act.

    Args:
        changes: step and weights of each change, by step; the first one holds for the steps before, too. Weights are by
            group, always in one order, and sum to 1.
    """

    def __init__(self, changes: Iterable[tuple[int, dict[str, float]]]) -> None:
        changes = list(changes)
        self._names = list(changes[0][1])
        self._changes = [(step, _array(weights)) for step, weights in changes]  # weights (K,)
        self._shared: WeakValueDictionary[int, Changes] = WeakValueDictionary()  # those that were given away, by id

    def __len__(self) -> int:
        return len(self._changes)

    def at(self, step: int) -> NDArray[np.float64]:
        """Return the weights (K,) of a step."""
        return self._changes[max(0, bisect_right(self._changes, step, key=_STEP) - 1)][1]

    def change(self, step: int, weights: dict[str, float], *, is_last: bool) -> None:
        """Let weights act from a step on, in place of those set for it; drop changes after it if this is the last."""
        at = bisect_left(self._changes, step, key=_STEP)
        same = at < len(self._changes) and self._changes[at][0] == step
        self._changes[at : None if is_last else at + same] = [(step, _array(weights))]
        for each in self._shared.values():
            for dropped in [later for later in each if is_last and later > step]:
                del each[dropped]
            each[step] = weights

    def changes_from(self, step: int, *, shared: bool) -> Changes:
        """Return the changes at a step and later; those that are shared follow what is set from now on."""
        later = self._changes[bisect_left(self._changes, step, key=_STEP) :]
        changes = OrderedDict((at, dict(zip(self._names, values.tolist(), strict=True))) for at, values in later)
        if shared:
            self._shared[id(changes)] = changes
        return changes

    def forget_before(self, step: int) -> None:
        """Drop weights that no step from this one on has."""
        del self._changes[: max(0, bisect_right(self._changes, step, key=_STEP) - 1)]


def normalised(weights: Mapping[Any, float], names: Iterable[str]) -> dict[str, float]:
    """Return weights by group, in the order of `names`; they sum to 1.

    Raises MixtureError for weights that are no distribution over the groups.
    """
    names = list(names)
    by_name = {
        name: real_number(f"weights[{name!r}]", weight, MixtureError, "give a relative weight (0 leaves a group out)")
        for name, weight in by_group(weights, "weights", MixtureError).items()
    }
    if set(by_name) != set(names):
        raise MixtureError(
            f"weights have groups {sorted(by_name)}, the data {sorted(names)}; give one of each (0 leaves a group out)"
        )
    total = sum(by_name.values())
    if min(by_name.values()) < 0 or not 0 < total < np.inf:
        raise MixtureError(f"weights {by_name} must be non-negative and not all zero, with a finite sum")
    return {name: by_name[name] / total for name in names}


def _array(weights: dict[str, float]) -> NDArray[np.float64]:
    return np.array(list(weights.values()), dtype=float)
