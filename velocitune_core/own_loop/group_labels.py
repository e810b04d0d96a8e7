"""Which example is of which group: from a label per example, or from data sets that lie one after the other."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture import MixtureError
from velocitune_core.own_loop.checks import by_group, group_name, whole_number

Groups = Sequence[Hashable] | NDArray[Any] | Mapping[Any, Sized | int]


def grouped(groups: Groups) -> tuple[dict[str, int], NDArray[np.int64] | None]:
    """Return the examples by group, and the indices of all examples sorted by group, (N,); None: they are sorted.

    Args:
        groups: the label of every example, (N,); or data sets (or their lengths) by name, indexed one after the other.

    Raises MixtureError for groups without examples, and for labels or lengths of another kind.
    """
    if len(groups) == 0:
        raise MixtureError("groups are empty; give a label per example, or data sets by name")
    if isinstance(groups, Mapping):
        named = by_group(groups, "groups", MixtureError)
        sizes = {name: _length(name, data) for name, data in named.items()}
        if empty := [name for name, size in sizes.items() if not size]:
            raise MixtureError(f"groups {empty} need at least one example; leave them out of groups and weights")
        return sizes, None
    names, codes = _coded(groups.tolist() if hasattr(groups, "tolist") else groups)  # type: ignore[union-attr]
    sizes = dict(zip(names, np.bincount(codes).tolist(), strict=True))
    return sizes, np.argsort(codes, kind="stable")


def _coded(labels: Iterable[Any]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of the groups in order, and the position in them of each example's group, (N,)."""
    labels = list(labels)
    try:
        name_of = {label: group_name(label) for label in set(labels)}
    except TypeError:
        raise MixtureError(
            f"groups must hold one label per example, (N,), and labels like {labels[0]!r} are none; give integers or "
            "strings, such as a single column"
        ) from None
    names = sorted(set(name_of.values()))
    position = {name: at for at, name in enumerate(names)}
    code_of = {label: position[name] for label, name in name_of.items()}
    return names, np.fromiter((code_of[label] for label in labels), dtype=np.int64, count=len(labels))


def _length(name: str, data: Sized | int) -> int:
    """Return the examples of a data set that is given as such, or by its length."""
    fix = "give a data set that has a length, or the length"
    length = len(data) if isinstance(data, Sized) else data
    return whole_number(f"groups[{name!r}]", length, MixtureError, fix=fix)
