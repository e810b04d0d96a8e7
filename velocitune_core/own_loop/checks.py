"""Checks of what a caller gives: each error names the field, the value and the fix."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from velocitune_core.mixture import MixtureError

Value = TypeVar("Value")


class ReweighterError(ValueError):
    """Weights, losses, options, steps or a saved state that a reweighter cannot use."""


def group_name(label: Any) -> str:
    """Return the name of a group: 0, numpy's or torch's 0 and "0" are one group, as they are in a JSON state."""
    return str(label.item() if hasattr(label, "item") else label)


def by_group(values: Mapping[Hashable, Value], field: str, error: type[ValueError]) -> dict[str, Value]:
    """Return values by the name of their group.

    Raises `error` if they are neither a mapping nor a Series of pandas, or two labels have one name.
    """
    if not hasattr(values, "items"):
        raise error(
            f"{field} {reprlib.repr(values)} must be a mapping from group to value, such as {{'a': 0.5, 'b': 0.5}}"
        )
    labels = [label for label, _ in values.items()]  # a Series may have one twice
    named = {group_name(label): value for label, value in values.items()}
    if len(named) < len(labels):
        raise error(f"{field} has labels {labels}, of which some have the same name ({[*named]}); give each group once")
    return named


def whole_number(
    field: str, value: Any, error: type[ValueError], *, least: int | None = 0, fix: str | None = None
) -> int:
    """Return a whole number of Python, numpy or torch as an integer of Python: 4, and 4.0 of a float all_reduce.

    Raises `error` for fractions, other types, text included, and below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        if not _as_float(value).is_integer():
            raise error(
                f"{field} {value!r} must be an integer (it is a {type(value).__name__}); {fix or 'round it'}"
            ) from None
        number = int(value)
    if least is not None and number < least:
        raise error(f"{field} {number} must be at least {least}; {fix or 'give a larger one'}")
    return number


def real_number(field: str, value: Any, error: type[ValueError], fix: str, *, finite: bool = True) -> float:
    """Return a number of Python, numpy or torch as a float.

    Raises `error` for other types, text included, and for NaN; for infinity as well if it must be finite.
    """
    number = _as_float(value)
    if math.isnan(number) or (finite and math.isinf(number)):
        shown = number if isinstance(value, float) else repr(value)
        raise error(f"{field} is {shown}, but must be a {'finite ' if finite else ''}number; {fix}")
    return number


def _as_float(value: Any) -> float:
    """Return a number of Python, numpy or torch as a float; NaN for other types, text included."""
    try:
        return math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan


def positive_number(field: str, value: Any, error: type[ValueError]) -> float:
    """Return a limit as a float. Raises `error` for other types, and for numbers that are not above 0."""
    number = real_number(field, value, error, "give a number above 0, or None: no limit")
    if number <= 0:
        raise error(f"{field} {number} must be above 0; give a larger one, or None: no limit")
    return number


def part_size(batch_size: int, world_size: int, micro_batch_size: Any) -> int:
    """Return the examples per list of indices; without `micro_batch_size`, a rank's part of a step.

    Raises MixtureError if the parts do not divide the batch.
    """
    if micro_batch_size is None:
        divisor, parts = world_size, f"world_size {world_size}, as ranks get equal parts"
    else:
        size = whole_number("micro_batch_size", micro_batch_size, MixtureError, least=1)
        divisor, parts = world_size * size, f"world_size {world_size} times micro_batch_size {size}"
    if batch_size % divisor:
        larger = batch_size + -batch_size % divisor
        raise MixtureError(f"batch_size {batch_size} must be a multiple of {parts}; the next one is {larger}")
    return divisor // world_size if micro_batch_size is not None else batch_size // world_size
