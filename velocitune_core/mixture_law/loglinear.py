"""The log-linear law of Data Mixing Laws and olmix: L_i(w) = e^{c_i} + e^{Σ_j t_ij w_j}.

The constant b_i of e^{c + b + A·w} is in t: the weights sum to 1.
"""

from __future__ import annotations

import numpy as np

from velocitune_core.mixture_law.fit_batch import Array

PRIOR = 1e-4  # curvature in every parameter, for losses of unit variance: weak
SHARES = (0.3, 0.6, 0.9)  # of the smallest loss, for e^c


class LogLinear:
    """θ = (c, t_1 … t_K)."""

    name = "loglinear"
    convex = True

    def __init__(self, domains: int) -> None:
        self.domains = domains
        self.bounds = np.array([(-8.0, 8.0), *[(-40.0, 40.0)] * domains]).T

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

    def prior(self, theta: Array) -> tuple[Array, Array, Array]:
        """Return value (S,), gradient and curvature (S, P) for losses of unit variance."""
        return PRIOR / 2 * (theta**2).sum(axis=1), PRIOR * theta, np.full_like(theta, PRIOR)

    def starts(self, values: Array) -> Array:
        """Return starts (n, P) for losses (R,)."""
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
