"""The laws as curves to fit: log losses and derivatives for a batch of θ, starting points, and natural parameters.

Logarithms of sizes are centred on the points, so that a coefficient and its exponent are nearly uncorrelated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from velocitune_core.scaling_law.huber import Array

LOG_E_BOUNDS = (-6.0, 4.0)  # E between 0.0025 and 55 nats per token
EXPONENT_BOUNDS = (0.0, 3.0)
COEFFICIENT_BOUNDS = (-40.0, 40.0)  # of log A and log B at the centre of the points
LOGIT_BOUNDS = (-8.0, 8.0)  # anchored: E between 0.03 % and 99.97 % of the initial loss
SHIFT_BOUNDS = (-8.0, 8.0)  # anchored: log D0, relative to the centre of the points


def power_law(tokens: ArrayLike, e: ArrayLike, b: ArrayLike, beta: ArrayLike, shift: ArrayLike = 0.0) -> Array:
    """Return L(D) = E + B / (D + D0)^β in nats per token, where D is `tokens` and D0 `shift`; arguments broadcast."""
    tokens, e, b, beta, shift = (np.asarray(each, dtype=float) for each in (tokens, e, b, beta, shift))
    return e + b * (tokens + shift) ** -beta


class Powers:
    """E + Σ_j C_j / x_j^γ_j; θ = (log E, log c_1…c_J, γ_1…γ_J), where c_j is term j at the centre of the points.

    Args:
        log_sizes: (J, P) logarithm of size j of each point.
    """

    def __init__(self, log_sizes: Array) -> None:
        self.centres = log_sizes.mean(axis=1)
        self.x = log_sizes - self.centres[:, None]
        terms = len(log_sizes)
        ranges = [LOG_E_BOUNDS, *[COEFFICIENT_BOUNDS] * terms, *[EXPONENT_BOUNDS] * terms]
        self.bounds = np.array(ranges).T

    def curve(self, theta: Array) -> tuple[Array, Array]:
        """Return log losses (S, P) and their derivatives (S, 1 + 2J, P) for θ (S, 1 + 2J)."""
        terms = len(self.x)
        jacobian = np.empty((len(theta), 1 + 2 * terms, self.x.shape[1]))
        logs = jacobian[:, : 1 + terms]  # logarithms of the terms, then their shares of the loss
        logs[:, 0] = theta[:, :1]
        logs[:, 1:] = theta[:, 1 : 1 + terms, None] - theta[:, 1 + terms :, None] * self.x
        total = _log_sum_exp(logs)
        np.multiply(logs[:, 1:], -self.x, out=jacobian[:, 1 + terms :])
        return total, jacobian

    def starts(self, y: Array) -> Array:
        """Return starts for one term, (S, 3), for log losses (P,): E at shares of the smallest, the term the rest."""
        share, exponent = _grid((0.3, 0.5, 0.8, 0.9, 0.97), (0.05, 0.15, 0.3, 0.6, 1.2, 2.5))
        rest = np.maximum(np.exp(y).mean() - share * np.exp(y.min()), 1e-3)
        return np.stack([np.log(share) + y.min(), np.log(rest), exponent], axis=1)

    def published_starts(self) -> Array:
        """Return the 4,500 starts of Hoffmann et al. (2022, appendix D.3), (S, 5).

        α, β in {0, ½, 1, 1½, 2}, e in {−1, −½, 0, ½, 1}, a, b in {0, 5, …, 25}.
        """
        exponents, coefficients = np.linspace(0, 2, 5), np.linspace(0, 25, 6)
        alpha, beta, e, a, b = _grid(exponents, exponents, np.linspace(-1, 1, 5), coefficients, coefficients)
        return np.stack([e, a - alpha * self.centres[0], b - beta * self.centres[1], alpha, beta], axis=1)

    def natural(self, theta: Array) -> Array:
        """Return E, C_1…C_J, γ_1…γ_J and D0 = 0 for each θ, (S, 1 + 2J + 1)."""
        terms = len(self.x)
        exponents = theta[:, 1 + terms :]
        coefficients = np.exp(theta[:, 1 : 1 + terms] + exponents * self.centres)
        return np.column_stack([np.exp(theta[:, 0]), coefficients, exponents, np.zeros(len(theta))])


class Anchored:
    """E + (ℓ_init − E)·(1 + D/D0)^(−β); θ = (logit of E / ℓ_init, log D0 relative to the centre of the points, β).

    Args:
        log_sizes: (P,) logarithm of the tokens of each point.
        initial_loss: ℓ_init in nats per token.
    """

    def __init__(self, log_sizes: Array, initial_loss: float) -> None:
        self.centre = float(log_sizes.mean())
        self.x = log_sizes - self.centre
        self.initial_loss = initial_loss
        self.bounds = np.array([LOGIT_BOUNDS, SHIFT_BOUNDS, EXPONENT_BOUNDS]).T

    def curve(self, theta: Array) -> tuple[Array, Array]:
        """Return log losses (S, P) and their derivatives (S, 3, P) for θ (S, 3)."""
        logit, shift, beta = (column[:, None] for column in theta.T)
        share = 1 / (1 + np.exp(-logit))
        ratio = np.exp(self.x - shift)  # D/D0
        fall = np.log1p(ratio)
        logs = np.stack([np.broadcast_to(np.log(share), fall.shape), np.log1p(-share) - beta * fall], axis=1)
        total = _log_sum_exp(logs)
        reached, left = logs[:, 0], logs[:, 1]
        steepness = ratio / (1 + ratio)  # −d fall / d shift
        jacobian = np.stack([reached * (1 - share) - left * share, left * beta * steepness, -left * fall], axis=1)
        return total + np.log(self.initial_loss), jacobian

    def starts(self, y: Array) -> Array:
        """Return starts, (S, 3): E at shares of the smallest or initial loss, D0 below, among and above the points."""
        lowest = min(float(np.exp(y.min())) / self.initial_loss, 1.0)
        share, shift, beta = _grid((0.3, 0.6, 0.9, 0.97), (-4.0, -2.0, 0.0, 2.0), (0.1, 0.3, 0.6, 1.2, 2.5))
        share = share * lowest
        return np.stack([np.log(share / (1 - share)), shift, beta], axis=1)

    def natural(self, theta: Array) -> Array:
        """Return E, B, β, D0 of the same law written as E + B / (D + D0)^β, (S, 4)."""
        e = self.initial_loss / (1 + np.exp(-theta[:, 0]))
        log_shift = theta[:, 1] + self.centre
        b = (self.initial_loss - e) * np.exp(theta[:, 2] * log_shift)
        return np.column_stack([e, b, theta[:, 2], np.exp(log_shift)])


def _log_sum_exp(logs: Array) -> Array:
    """Return the log of the sum over terms, (S, P), of logs (S, T, P); overwrite `logs` with each term's share."""
    top = logs.max(axis=1, keepdims=True)
    logs -= top
    np.exp(logs, out=logs)
    total = logs.sum(axis=1, keepdims=True)
    logs /= total
    return (np.log(total) + top)[:, 0]


def _grid(*axes: ArrayLike) -> list[Array]:
    """Return all combinations of the values, one flat array per axis."""
    return [each.ravel() for each in np.meshgrid(*(np.asarray(axis, float) for axis in axes), indexing="ij")]
