"""Swarms drawn from transfer laws with known parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DrawnSwarm:
    """The truth L_i(w) = E_i + B_i (1 + Σ a_ij w_j)^(−β_i), and runs with noise."""

    e: np.ndarray  # (I,)
    b: np.ndarray  # (I,)
    beta: np.ndarray  # (I,)
    rates: np.ndarray  # (I, K)
    weights: np.ndarray  # (R, K)
    losses: np.ndarray  # (R, I)

    def truth(self, weights: np.ndarray) -> np.ndarray:
        """Return losses (..., I) at weights (..., K)."""
        return self.e + self.b * (1 + weights @ self.rates.T) ** -self.beta

    @property
    def domains(self) -> list[str]:
        return [f"domain{number}" for number in range(self.weights.shape[1])]

    @property
    def columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return weights and losses by name; the first sets have the names of domains."""
        sets = [f"domain{number}" for number in range(self.losses.shape[1])]
        return dict(zip(self.domains, self.weights.T, strict=True)), dict(zip(sets, self.losses.T, strict=True))


def draw_swarm(seed: int, *, runs: int = 24, domains: int = 5, sets: int = 3, noise: float = 0.005) -> DrawnSwarm:
    """Draw parameters of the size that real swarms show, mixtures from a Dirichlet distribution, and runs."""
    random = np.random.default_rng(seed)
    rates = random.exponential(0.3, (sets, domains)) * (random.random((sets, domains)) < 0.6)
    rates[np.arange(sets), np.arange(sets)] = random.uniform(3, 12, sets)
    weights = random.dirichlet(np.full(domains, 3.0), size=runs)
    parameters = random.uniform(2, 3.5, sets), random.uniform(0.6, 2, sets), random.uniform(0.4, 1.2, sets)
    swarm = DrawnSwarm(*parameters, rates, weights, np.empty((runs, sets)))
    losses = swarm.truth(weights) + noise * random.standard_normal((runs, sets))
    return DrawnSwarm(*parameters, rates, weights, losses)
