"""Shares as whole numbers of a smallest unit that sum to the whole: the one way in which weights are rounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TypeVar

Number = TypeVar("Number", float, Fraction)
PAGE_DIGITS = 11  # significant, of the numbers that the page of a plan carries; its losses are exact to 1e-6 and better


def carried(value: float) -> float:
    """Return a number as the page of a plan carries it."""
    return float(f"{value:.{PAGE_DIGITS}g}")


def whole_units(shares: Mapping[str, Number], units: int) -> dict[str, int]:
    """Return whole numbers by name that sum to `units`, of shares that sum to 1.

    Each is rounded down, and the largest remainders get what is left, one unit each; of equal ones the first. The
    page of a plan does the same (`rounded` in templates/plan_law.js), so its numbers are those of the files.
    """
    scaled = {name: share * units for name, share in shares.items()}
    found = {name: math.floor(each) for name, each in scaled.items()}
    by_remainder = sorted(found, key=lambda name: found[name] - scaled[name])
    for name in by_remainder[: max(units - sum(found.values()), 0)]:
        found[name] += 1
    return found
