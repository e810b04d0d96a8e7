"""The transfer law: L_i(w) = E_i + B_i · (1 + Σ_j a_ij w_j)^(−β_i), with a_ij ≥ 0.

Each domain j gives set i effective tokens at the exchange rate a_ij. What the base model has learnt of i, c_i, is the
unit of these tokens: runs of one budget determine only ratios of c_i and a_ij, the common factor is in B_i. With one
domain it is the Chinchilla law, anchored at what the model had learnt before.

The prior is λ · Σ_j log(1 + a_ij): without evidence a domain is worth nothing to a set beyond what the model has
learnt. Like an L1 prior it lets most rates vanish, but it takes little from a large one.
"""

from __future__ import annotations

import numpy as np

from velocitune_core.mixture_law.fit_batch import Array, Solver

SHAPE = 3  # log E, log B, log β; the log rates follow
LOG_BETA_CENTRE = -1.0  # β near 0.4
RATE_PRIOR = 1e-3  # λ, for losses of unit variance
SHAPE_PRIOR = 2e-4  # curvature in log E, log B, log β: weak, it keeps what the runs do not determine from drifting
LOG_RATE_BOUNDS = (-9.0, 9.0)
REVIVED_LOG_RATE = -2.0  # least one at which a refit starts
STARTS = ((0.3, 0.3), (0.6, 0.8), (0.85, 0.15), (0.5, 2.0))  # E as a share of the smallest loss, and β


class Transfer:
    """θ = (log E, log B, log β, log a_1 … log a_K)."""

    name = "transfer"
    longest_step = 2.0
    convex = True  # in the weights, for B ≥ 0 and β > 0: a power below zero of a linear form

    def __init__(self, domains: int) -> None:
        self.domains = domains
        ranges = [(-8.0, 8.0), (-12.0, 12.0), (np.log(0.02), np.log(4.0)), *[LOG_RATE_BOUNDS] * domains]
        self.bounds = np.array(ranges).T

    def curve(self, theta: Array, weights: Array) -> tuple[Array, Array]:
        """Return losses (S, R) and their derivatives (S, P, R) for θ (S, P) and weights (R, K)."""
        rates, beta = np.exp(theta[:, SHAPE:]), np.exp(theta[:, 2:3])
        effective = 1 + rates @ weights.T  # (S, R)
        logs = np.log(effective)
        learnable = np.exp(theta[:, 1:2] - beta * logs)
        jacobian = np.empty((*theta.shape, len(weights)))
        jacobian[:, 0] = np.exp(theta[:, :1])
        jacobian[:, 1] = learnable
        np.multiply(learnable, -beta * logs, out=jacobian[:, 2])
        slope = -beta * learnable / effective
        np.multiply(rates[:, :, None], weights.T, out=jacobian[:, SHAPE:])
        jacobian[:, SHAPE:] *= slope[:, None]
        return jacobian[:, 0] + learnable, jacobian

    def losses(self, theta: Array, weights: Array) -> Array:
        """Return losses (..., I) for θ (I, P) and weights (..., K)."""
        effective = 1 + weights @ np.exp(theta[:, SHAPE:]).T
        return np.exp(theta[:, 0]) + np.exp(theta[:, 1]) * effective ** -np.exp(theta[:, 2])

    def slopes(self, theta: Array, weights: Array) -> Array:
        """Return derivatives by the weights (..., I, K) for θ (I, P) and weights (..., K)."""
        rates, beta = np.exp(theta[:, SHAPE:]), np.exp(theta[:, 2])
        effective = 1 + weights @ rates.T
        steepness = -beta * np.exp(theta[:, 1]) * effective ** (-beta - 1)
        return steepness[..., None] * rates

    def natural_jacobian(self, theta: Array, weights: Array) -> Array:
        """Return derivatives (P, R) by E, log B, log β and the rates themselves, for θ (P,) and weights (R, K).

        The logarithm of a rate that has vanished would say nothing.
        """
        rates, beta = np.exp(theta[SHAPE:]), np.exp(theta[2])
        effective = 1 + weights @ rates
        learnable = np.exp(theta[1]) * effective**-beta
        steepness = -beta * learnable / effective  # (R,) by the effective tokens
        shape = [np.ones_like(learnable), learnable, -beta * np.log(effective) * learnable]
        return np.vstack([*shape, steepness * weights.T])

    def slope_derivatives(self, theta: Array, mean: Array) -> Array:
        """Return derivatives (K, P) of the slopes at a mixture (K,) by the same parameters, for θ (P,)."""
        rates, beta = np.exp(theta[SHAPE:]), np.exp(theta[2])
        effective = 1 + mean @ rates
        steepness = -beta * np.exp(theta[1]) * effective ** (-beta - 1)
        slopes = steepness * rates
        by_rates = steepness * np.eye(len(rates)) - (beta + 1) / effective * np.outer(slopes, mean)
        return np.column_stack([np.zeros_like(slopes), slopes, slopes * (1 - beta * np.log(effective)), by_rates])

    def prior(self, theta: Array) -> tuple[Array, Array, Array]:
        """Return value (S,), gradient and curvature (S, P) for losses of unit variance."""
        rates = np.exp(theta[:, SHAPE:])
        share = rates / (1 + rates)
        shape = theta[:, :SHAPE] - [0.0, 0.0, LOG_BETA_CENTRE]
        value = RATE_PRIOR * np.log1p(rates).sum(axis=1) + SHAPE_PRIOR / 2 * (shape**2).sum(axis=1)
        gradient = np.concatenate([SHAPE_PRIOR * shape, RATE_PRIOR * share], axis=1)
        curvature = np.concatenate([np.full_like(shape, SHAPE_PRIOR), RATE_PRIOR * share * (1 - share)], axis=1)
        return value, gradient, curvature

    @property
    def solver(self) -> Solver:
        """The form whose parameters are fitted."""
        return self

    def to_solver(self, theta: Array) -> Array:
        """Return θ (..., P) of the solver, to go on from: a rate that has vanished has no gradient to come back on."""
        theta = theta.copy()
        theta[..., SHAPE:] = np.maximum(theta[..., SHAPE:], REVIVED_LOG_RATE)
        return theta

    def from_solver(self, theta: Array) -> Array:
        """Return θ (..., P) of the law for θ of the solver."""
        return theta

    def starts(self, values: Array, own: int | None) -> Array:
        """Return starts (n, P) for losses (R,) of a set; `own` is the domain with its name, which makes no matter."""
        random = np.random.default_rng(0)
        found = []
        for share, beta in STARTS:
            lowest = share * values.min()
            shape = [np.log(lowest), np.log(max(values.mean() - lowest, 1e-3)), np.log(beta)]
            found.append([*shape, *(0.5 * random.standard_normal(self.domains))])
        return np.array(found)

    def constant(self, value: float) -> Array:
        """Return θ (P,) of a loss that no weight moves."""
        return np.array([np.log(value), -np.inf, LOG_BETA_CENTRE, *[-np.inf] * self.domains])

    def scaled(self, theta: Array, factor: Array) -> Array:
        """Return θ (..., P) of `factor` (...) times the losses."""
        theta = theta.copy()
        theta[..., :2] += np.log(factor)[..., None]
        return theta

    def named(self, theta: Array, domains: tuple[str, ...]) -> dict[str, Array]:
        """Return the parameters (...) by name for θ (..., P)."""
        names = ("E", "B", "beta", *(f"a[{domain}]" for domain in domains))
        return dict(zip(names, np.moveaxis(np.exp(theta), -1, 0), strict=True))
