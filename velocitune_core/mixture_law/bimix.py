"""BiMix: a power law in the share of one domain, L_i(w) = E_i + B_i · (1 + a_i w_i)^(−β_i).

It is the transfer law with one exchange rate per set: that of the domain with the set's name. A set without a domain of
its name takes the domain that explains its losses best.

Runs of one budget hardly determine a and β, which trade places: a prior holds them near 30 and the transfer law's β
unless many runs say otherwise, so that few runs are spent on E and B (docs/MIXTURES.md).
"""

from __future__ import annotations

import numpy as np

from velocitune_core.mixture_law.fit_batch import Array, Solver
from velocitune_core.mixture_law.transfer import LOG_BETA_CENTRE, SHAPE, SHAPE_PRIOR, Transfer

LOG_RATE_CENTRE = np.log(30.0)
OWN_PRIOR = 0.1  # curvature in log β and log a, for losses of unit variance


class BiMix(Transfer):
    """θ as in the transfer law; the log rates of all other domains are −∞."""

    name = "bimix"

    @property
    def solver(self) -> Solver:
        """The form whose parameters are fitted: those of one domain."""
        return OwnShare(self.domains)

    def prior(self, theta: Array) -> tuple[Array, Array, Array]:
        """Return value (S,), gradient and curvature (S, P) for losses of unit variance."""
        value, gradient, curvature = self.solver.prior(self.to_solver(theta))
        wide = [np.zeros((len(theta), SHAPE + self.domains)) for _ in range(2)]
        at = np.column_stack([np.tile(np.arange(SHAPE), (len(theta), 1)), SHAPE + _domain(self.to_solver(theta))])
        for found, narrow in zip(wide, (gradient, curvature), strict=True):
            np.put_along_axis(found, at, narrow[:, :-1], axis=1)
        return value, wide[0], wide[1]

    def to_solver(self, theta: Array) -> Array:
        """Return θ (..., 5) of the solver."""
        domain = theta[..., SHAPE:].argmax(axis=-1)[..., None]
        rate = np.take_along_axis(theta[..., SHAPE:], domain, axis=-1)
        return np.concatenate([theta[..., :SHAPE], rate, domain], axis=-1)

    def from_solver(self, theta: Array) -> Array:
        """Return θ (..., P) of the law for θ (..., 5) of the solver."""
        rates = np.full((*theta.shape[:-1], self.domains), -np.inf)
        np.put_along_axis(rates, _domain(theta)[..., None], theta[..., SHAPE : SHAPE + 1], axis=-1)
        return np.concatenate([theta[..., :SHAPE], rates], axis=-1)


class OwnShare:
    """The same law as it is fitted: θ = (log E, log B, log β, log a, index of the domain), the last held fixed."""

    longest_step = Transfer.longest_step

    def __init__(self, domains: int) -> None:
        self.domains = domains
        self._one = Transfer(1)
        self.bounds = np.column_stack([self._one.bounds, (0.0, max(domains - 1.0, 1.0))])

    def curve(self, theta: Array, weights: Array) -> tuple[Array, Array]:
        """Return losses (S, R) and their derivatives (S, 5, R) for θ (S, 5) and weights (R, K)."""
        rate, beta = np.exp(theta[:, SHAPE : SHAPE + 1]), np.exp(theta[:, 2:3])
        share = weights.T[_domain(theta)]  # (S, R)
        effective = 1 + rate * share
        logs = np.log(effective)
        learnable = np.exp(theta[:, 1:2] - beta * logs)
        lowest = np.broadcast_to(np.exp(theta[:, :1]), learnable.shape)
        by_rate = -beta * learnable * rate * share / effective
        jacobian = [lowest, learnable, -beta * logs * learnable, by_rate, np.zeros_like(learnable)]
        return lowest + learnable, np.stack(jacobian, axis=1)

    def prior(self, theta: Array) -> tuple[Array, Array, Array]:
        """Return value (S,), gradient and curvature (S, 5) for losses of unit variance."""
        off = theta - [0.0, 0.0, LOG_BETA_CENTRE, LOG_RATE_CENTRE, 0.0]
        strength = np.array([SHAPE_PRIOR, SHAPE_PRIOR, OWN_PRIOR, OWN_PRIOR, 0.0])
        return (strength / 2 * off**2).sum(axis=1), strength * off, np.broadcast_to(strength, theta.shape).copy()

    def starts(self, values: Array, own: int | None) -> Array:
        """Return starts (n, 5) for losses (R,): in the share of its own domain, or of each domain if it has none."""
        shape = self._one.starts(values, None)[:, :SHAPE]
        domains = np.arange(self.domains) if own is None else np.array([own])
        rate = np.full(len(shape), LOG_RATE_CENTRE)
        return np.concatenate([np.column_stack([shape, rate, np.full(len(shape), each)]) for each in domains])


def _domain(theta: Array) -> np.ndarray:
    return theta[..., -1].astype(np.intp)
