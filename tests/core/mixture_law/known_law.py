"""A law with known parameters, in the shape of a fitted one: its optimum can be worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KnownLaw:
    """L_i(w) = E_i + B_i · (c_i + Σ_j a_ij w_j)^(−β_i), and resamples that are other such laws."""

    domains: tuple[str, ...]
    sets: tuple[str, ...]
    e: Array  # (I,)
    b: Array  # (I,)
    c: Array  # (I,)
    beta: Array  # (I,)
    a: Array  # (I, K)
    others: tuple[KnownLaw, ...] = ()
    run_weights: Array = field(default_factory=lambda: np.empty((0, 0)))
    name: str = "transfer"
    convex: bool = True

    @property
    def resamples(self) -> int:
        return len(self.others)

    @property
    def runs(self) -> SimpleNamespace:
        return SimpleNamespace(domains=self.domains, sets=self.sets, weights=self.run_weights)

    def resampled(self, index: int) -> KnownLaw:
        return self.others[index]

    def losses(self, weights: Array) -> Array:
        return self.e + self.b * (self.c + weights @ self.a.T) ** -self.beta

    def jacobian(self, weights: Array) -> Array:
        slope = -self.b * self.beta * (self.c + weights @ self.a.T) ** (-self.beta - 1)
        return slope[..., None] * self.a

    def resampled_losses(self, weights: Array) -> Array:
        return np.array([law.losses(weights) for law in self.others])
