"""Mixtures that cost no search: the initial weights, temperatures of them, and equal shares."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STATIC, UNIFORM = "static", "uniform"
TEMPERATURES = (1.5, 2.0, 3.0)


def temperature(initial: Array, t: float) -> Array:
    """Return w ∝ w₀^(1/T), (K,)."""
    powered = initial ** (1 / t)
    return powered / powered.sum()


def reference_mixtures(
    initial: Array | None, domains: int, temperatures: Iterable[float] = TEMPERATURES
) -> dict[str, Array]:
    """Return the references by name; without initial weights only equal shares."""
    uniform = {UNIFORM: np.full(domains, 1 / domains)}
    if initial is None:
        return uniform
    return {STATIC: initial, **{f"T = {t:g}": temperature(initial, t) for t in temperatures}, **uniform}
