"""A law with known parameters, in the shape of a fitted one: its optimum can be worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.support import Support

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

    @property
    def noise(self) -> Array:
        return np.full(len(self.sets), 0.01)

    def resampled(self, index: int) -> KnownLaw:
        return self.others[index]

    def losses(self, weights: Array) -> Array:
        return self.e + self.b * (self.c + weights @ self.a.T) ** -self.beta

    def jacobian(self, weights: Array) -> Array:
        slope = -self.b * self.beta * (self.c + weights @ self.a.T) ** (-self.beta - 1)
        return slope[..., None] * self.a

    def resampled_losses(self, weights: Array) -> Array:
        return np.array([law.losses(weights) for law in self.others])

    def interval(self, weights: dict[str, float], level: float = 0.95) -> dict[str, tuple[float, float]]:
        drawn = self.resampled_losses(np.array([weights[name] for name in self.domains]))
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return {name: (float(low[index]), float(high[index])) for index, name in enumerate(self.sets)}

    def reordered(self, order: Array) -> KnownLaw:
        """The same law with its domains in another order; the sets stay."""
        names = tuple(self.domains[index] for index in order)
        return replace(self, domains=names, a=self.a[:, order], run_weights=self.run_weights[:, order])


# 4/w₁ and 1/w₂: the mean is least where 4/w₁² = 1/w₂², so at w₁ = 2/3
PAIR = KnownLaw(("a", "b"), ("a", "b"), np.zeros(2), np.array([4.0, 1.0]), np.zeros(2), np.ones(2), np.eye(2))


def everywhere(domains: int) -> Support:
    """Return the whole simplex: no limit."""
    centre = np.full(domains, 1 / domains)
    return Support(np.zeros(domains), np.ones(domains), centre, np.zeros((domains, domains)))


def known_law(size: int, *, seed: int) -> KnownLaw:
    """A law of `size` domains, each of them a set, and 4 · size + 4 runs."""
    random, names = np.random.default_rng(seed), tuple("abcdefg"[:size])
    return KnownLaw(
        names,
        names,
        e=np.full(size, 2.0),
        b=np.linspace(1, 2, size),
        c=np.full(size, 0.05),
        beta=np.linspace(0.3, 0.5, size),
        a=np.eye(size) + 0.1 * random.random((size, size)),
        run_weights=random.dirichlet(np.full(size, 3.0), 4 * size + 4),
    )


def resampled_law(size: int, *, resamples: int, noise: float) -> KnownLaw:
    """A known law with resamples whose exchange rates differ by this much, in their logarithm."""
    law, random = known_law(size, seed=1), np.random.default_rng(2)
    others = [replace(law, a=law.a * np.exp(noise * random.normal(size=law.a.shape))) for _ in range(resamples)]
    return replace(law, others=tuple(others))
