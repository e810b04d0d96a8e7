"""The log-linear law of Data Mixing Laws and olmix: L_i(w) = e^{c_i} + e^{Σ_j t_ij w_j}.

The constant b_i of e^{c + b + A·w} is in t: the weights sum to 1.

A domain of which a small share teaches a set all has a very negative t, which is harmless: its term vanishes. A large
t is not: few runs leave room for terms that grow without limit outside them. The prior therefore bears upwards only,
on a domain alone that leaves more to learn than E: (t_j − c)² where t_j > c.
"""

from __future__ import annotations

import numpy as np

from velocitune_core.mixture_law.fit_batch import Array, Solver

PRIOR = 1e-6  # curvature in every parameter, for losses of unit variance: it only keeps them from drifting
PRIOR_ABOVE = 1e-2  # curvature in t_j − c above 0
SHARES = (0.3, 0.6, 0.9)  # of the smallest loss, for e^c


class LogLinear:
    """θ = (c, t_1 … t_K)."""

    name = "loglinear"
    convex = True
    longest_step = 20.0  # t reaches −500 where a small share teaches all (RegMix: dm_mathematics)

    def __init__(self, domains: int) -> None:
        self.domains = domains
        self.bounds = np.array([(-8.0, 8.0), *[(-1000.0, 40.0)] * domains]).T

    def curve(self, theta: Array, weights: Array) -> tuple[Array, Array]:
        """Return losses (S, R) and their derivatives (S, P, R) for θ (S, P) and weights (R, K)."""
        learnable = np.exp(theta[:, 1:] @ weights.T)
        jacobian = np.empty((*theta.shape, len(weights)))
        jacobian[:, 0] = np.exp(theta[:, :1])
        np.multiply(learnable[:, None], weights.T, out=jacobian[:, 1:])
        return jacobian[:, 0] + learnable, jacobian

    def losses(self, theta: Array, weights: Array) -> Array:
        """Return losses (..., I) for θ (I, P) and weights (..., K)."""
        return np.exp(theta[:, 0]) + np.exp(weights @ theta[:, 1:].T)

    def slopes(self, theta: Array, weights: Array) -> Array:
        """Return derivatives by the weights (..., I, K) for θ (I, P) and weights (..., K)."""
        return np.exp(weights @ theta[:, 1:].T)[..., None] * theta[:, 1:]

    def natural_jacobian(self, theta: Array, weights: Array) -> Array:
        """Return derivatives (P, R) by E and t, for θ (P,) and weights (R, K)."""
        return np.vstack([np.ones(len(weights)), np.exp(weights @ theta[1:]) * weights.T])

    def slope_derivatives(self, theta: Array, mean: Array) -> Array:
        """Return derivatives (K, P) of the slopes at a mixture (K,) by the same parameters, for θ (P,)."""
        by_exponents = np.exp(mean @ theta[1:]) * (np.eye(len(mean)) + np.outer(theta[1:], mean))
        return np.column_stack([np.zeros(len(mean)), by_exponents])

    def prior(self, theta: Array) -> tuple[Array, Array, Array]:
        """Return value (S,), gradient and curvature (S, P) for losses of unit variance."""
        above = np.maximum(theta[:, 1:] - theta[:, :1], 0.0)
        value = PRIOR / 2 * (theta**2).sum(axis=1) + PRIOR_ABOVE / 2 * (above**2).sum(axis=1)
        gradient, curvature = PRIOR * theta, np.full_like(theta, PRIOR)
        gradient[:, 0] -= PRIOR_ABOVE * above.sum(axis=1)
        gradient[:, 1:] += PRIOR_ABOVE * above
        curvature[:, 0] += PRIOR_ABOVE * (above > 0).sum(axis=1)
        curvature[:, 1:] += PRIOR_ABOVE * (above > 0)
        return value, gradient, curvature

    @property
    def solver(self) -> Solver:
        """The form whose parameters are fitted."""
        return self

    def to_solver(self, theta: Array) -> Array:
        """Return θ (..., P) of the solver, to go on from."""
        return theta

    def from_solver(self, theta: Array) -> Array:
        """Return θ (..., P) of the law for θ of the solver."""
        return theta

    def starts(self, values: Array, own: int | None) -> Array:
        """Return starts (n, P) for losses (R,) of a set; `own` is the domain with its name, which makes no matter."""
        lowest = np.array(SHARES) * values.min()
        learnable = np.log(np.maximum(values.mean() - lowest, 1e-3))
        return np.column_stack([np.log(lowest), *[learnable] * self.domains])

    def constant(self, value: float) -> Array:
        """Return θ (P,) of a loss that no weight moves."""
        return np.array([np.log(value / 2), *[np.log(value / 2)] * self.domains])

    def scaled(self, theta: Array, factor: Array) -> Array:
        """Return θ (..., P) of `factor` (...) times the losses."""
        return theta + np.log(factor)[..., None]

    def named(self, theta: Array, domains: tuple[str, ...]) -> dict[str, Array]:
        """Return the parameters (...) by name for θ (..., P)."""
        names = ("E", *(f"t[{domain}]" for domain in domains))
        return dict(zip(names, [np.exp(theta[..., 0]), *np.moveaxis(theta[..., 1:], -1, 0)], strict=True))
