"""Whole numbers of sequences per domain that sum to a batch, and what rounding withholds carried over as credit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARPNESS = 4.0  # of chances over fractions: more keeps domains closer to their share, less mixes batches better
WHOLE = 1e-9  # sequences: a due as close as this below a whole number counts as that number


def apportion(due: NDArray[np.float64], room: NDArray[np.int64], total: int, start: float) -> NDArray[np.int64]:
    """Return sequences per domain (K,) that sum to `total` and have room.

    A domain that is due less than nothing, because it was rounded up lately, waits, and the dues of the others are
    lowered by one amount until all sum to `total`. Who is rounded up is a systematic sample (Madow, 1949, "On the
    theory of systematic sampling, II"): chances are laid end to end, and the domains at u, u + 1, u + 2, … win.

    Args:
        due: (K,) sequences that each domain should get by now, 0 without room.
        room: (K,) sequences that it can give; they sum to at least `total`.
        start: u, in (0, 1).
    """
    whole, fractions = _split(_lowered(due, room, total))
    # Sharper chances than the fractions keep domains closer to their share; equal fractions stay equal chances.
    chances = _lowered(SHARPNESS * fractions, fractions > 0, total - whole.sum())
    counts, chances = _split(whole + chances)
    if missing := total - int(counts.sum()):
        ends = chances.cumsum()
        points = np.minimum((np.arange(missing) + start) * (ends[-1] / missing), np.nextafter(ends[-1], 0.0))
        counts[ends.searchsorted(points, side="right")] += 1
    return counts


def initial_credit(phases: NDArray[np.float64], fresh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the credits (K,) before the first batch, spread as they are in later ones.

    With none, domains of similar weight would become due at the same time, batch after batch of them alone. A domain
    of many sequences per batch needs no credit; one of few is rounded up once its credit is about half a sequence, the
    later the larger its share, for it gains more per batch in which it is passed over. (The root is a fit to runs.)

    Args:
        phases: (K,) uniform in [0, 1].
        fresh: (K,) sequences per batch that the weights give.
    """
    few = np.minimum(fresh, 1.0)
    return (phases - 0.5 + 0.5 * np.sqrt(few)) * (1 - few)


def _split(expected: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return whole numbers and fractions (K,) of expected counts; what is almost whole has no fraction."""
    whole = np.floor(expected + WHOLE).astype(np.int64)
    return whole, np.clip(expected - whole, 0.0, None)


def _lowered(due: NDArray[np.float64], room: NDArray[Any], total: int) -> NDArray[np.float64]:
    """Return `due` (K,) less the one amount at which what is left, clipped to 0 and `room` (K,), sums to `total`.

    `room` must sum to at least `total`. The amount is negative where the dues sum to less than `total`.
    """
    if total == 0:
        return np.zeros_like(due)
    # As the amount falls, the sum grows at a constant slope between two breakpoints: a domain enters at its due, and
    # leaves when its room is full.
    breakpoints = np.concatenate([due, due - room])
    order = (-breakpoints).argsort(kind="stable")
    falling = breakpoints[order]
    slopes = np.concatenate([np.ones(len(due)), -np.ones(len(due))])[order].cumsum()
    sums = np.concatenate([[0.0], (slopes[:-1] * -np.diff(falling)).cumsum()])
    reached = min(int(sums.searchsorted(total)), len(sums) - 1)
    amount = falling[reached] + (sums[reached] - total) / max(slopes[reached - 1], 1.0)
    return np.clip(due - amount, 0.0, room)
