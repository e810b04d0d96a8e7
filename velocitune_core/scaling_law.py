"""Chinchilla scaling laws: L(D) = E + B/D^β for one model, L(N, D) = E + A/N^α + B/D^β for several.

Fitted as Hoffmann et al. (2022, arXiv 2203.15556, section 3.3 and appendix D.3) fit theirs: in log space, log L̂ =
log-sum-exp of the log terms, Huber loss with δ = 1e-3 on log L̂ − log L, L-BFGS from many starts. The *sum* of the
residuals is minimised: their mean is so small that optimisers stop early.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import huber, logsumexp, softmax

HUBER_DELTA = 1e-3
LOG_E_BOUNDS = (-6.0, 4.0)  # E between 0.0025 and 55 nats per token
EXPONENT_BOUNDS = (0.0, 3.0)
COEFFICIENT_BOUNDS = (-30.0, 60.0)  # of log A and log B


class ScalingLawError(ValueError):
    """Points that no scaling law can be fitted to."""


@dataclass(frozen=True)
class ScalingLawFit:
    """L(D) = E + B / D^beta, L in nats per token, D in tokens."""

    E: float
    B: float
    beta: float
    objective: float  # sum of Huber losses at the optimum, in units of δ
    at_bound: bool  # a parameter ended on the edge of its range, so the points do not determine it
    samples: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)), repr=False)  # (R, 3) E, B, beta

    def predict(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """Loss after `tokens` tokens, same shape."""
        return self.E + self.B * np.asarray(tokens, dtype=float) ** -self.beta

    def interval(self, tokens: float, level: float = 0.95) -> tuple[float, float] | None:
        """Percentile bootstrap interval of the loss after `tokens` tokens; None without a bootstrap."""
        if not len(self.samples):
            return None
        e, b, beta = self.samples.T
        low, high = np.quantile(e + b * float(tokens) ** -beta, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


@dataclass(frozen=True)
class ChinchillaFit:
    """L(N, D) = E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float
    at_bound: bool
    samples: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 5)), repr=False)  # (R, 5)

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
        """Loss of a model of `params` parameters after `tokens` tokens."""
        n, d = np.asarray(params, dtype=float), np.asarray(tokens, dtype=float)
        return self.E + self.A * n**-self.alpha + self.B * d**-self.beta


def fit_scaling_law(tokens: ArrayLike, losses: ArrayLike, *, bootstrap: int = 0, seed: int = 0) -> ScalingLawFit:
    """Fit L(D) = E + B / D^β.

    Args:
        tokens: (P,) training tokens of each point.
        losses: (P,) held-out loss of each point, nats per token.
        bootstrap: resamples of the points for `interval`; 0 for none.
        seed: of the resampling.

    Raises ScalingLawError for fewer than three points or token counts, or values that are not positive and finite.
    """
    sizes, losses = _check(tokens, losses)
    optimum = _fit([sizes], losses, bootstrap=bootstrap, seed=seed)
    (e, b, beta), samples = optimum.natural[:3], optimum.samples[:, [0, 1, 2]]
    return ScalingLawFit(e, b, beta, optimum.objective, optimum.at_bound, samples)


def fit_chinchilla(
    params: ArrayLike, tokens: ArrayLike, losses: ArrayLike, *, bootstrap: int = 0, seed: int = 0
) -> ChinchillaFit:
    """Fit L(N, D) = E + A / N^α + B / D^β to P points: params, tokens, losses (P,).

    Raises ScalingLawError as `fit_scaling_law` does.
    """
    models, _ = _check(params, losses)
    sizes, losses = _check(tokens, losses)
    optimum = _fit([models, sizes], losses, bootstrap=bootstrap, seed=seed)
    e, a, b, alpha, beta = optimum.natural
    return ChinchillaFit(e, a, b, alpha, beta, optimum.objective, optimum.at_bound, optimum.samples)


@dataclass(frozen=True)
class _Optimum:
    natural: tuple[float, ...]  # E, coefficients, exponents
    objective: float
    at_bound: bool
    samples: NDArray[np.float64]  # (R, 1 + 2J), natural parameters


def _check(sizes: ArrayLike, losses: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sizes, losses = np.asarray(sizes, dtype=float), np.asarray(losses, dtype=float)
    if sizes.ndim != 1 or sizes.shape != losses.shape:
        raise ScalingLawError(f"points must be two lists of one length, got {sizes.shape} and {losses.shape}")
    for name, values in (("sizes", sizes), ("losses", losses)):
        if not (np.all(np.isfinite(values)) and np.all(values > 0)):
            raise ScalingLawError(f"{name} {values.tolist()} must be positive and finite")
    if len(np.unique(sizes)) < 3:
        raise ScalingLawError(f"a law needs at least three different sizes, got {np.unique(sizes).tolist()}")
    return sizes, losses


def _fit(sizes: list[NDArray[np.float64]], losses: NDArray[np.float64], *, bootstrap: int, seed: int) -> _Optimum:
    """Fit E + Σ_j C_j / x_j^{γ_j}. Logs of sizes are centred, which takes C and γ apart."""
    logs = np.log(np.stack(sizes))  # (J, P)
    centres = logs.mean(axis=1, keepdims=True)
    x, y = logs - centres, np.log(losses)
    solutions = [_minimise(start, x, y) for start in _starts(x, y)]
    best, objective = min(solutions, key=lambda solution: solution[1])
    random, samples = np.random.default_rng(seed), []
    for _ in range(bootstrap):
        drawn = random.integers(len(y), size=len(y))
        samples.append(_natural(_minimise(best, x[:, drawn], y[drawn])[0], centres[:, 0]))
    edges = np.array(_bounds(len(x)))
    at_bound = bool(np.any(np.isclose(best[:, None], edges, atol=1e-6)))
    columns = np.array(samples) if samples else np.empty((0, 1 + 2 * len(x)))
    return _Optimum(_natural(best, centres[:, 0]), objective, at_bound, columns)


def _starts(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """A grid of starting points θ = (log E, log c_1…c_J, γ_1…γ_J), the terms' sizes scaled to the data."""
    terms = len(x)
    shares = (0.5, 0.8, 0.95)  # of the smallest loss that E starts with
    exponents = (0.1, 0.3, 0.6, 1.2) if terms == 1 else (0.2, 0.5, 1.0)
    starts = []
    for share, *powers in product(shares, *[exponents] * terms):
        rest = max(np.exp(y).mean() - share * np.exp(y.min()), 1e-3) / terms
        starts.append(np.array([np.log(share) + y.min(), *[np.log(rest)] * terms, *powers]))
    return starts


def _bounds(terms: int) -> list[tuple[float, float]]:
    return [LOG_E_BOUNDS, *[COEFFICIENT_BOUNDS] * terms, *[EXPONENT_BOUNDS] * terms]


def _minimise(
    start: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    result = minimize(
        _objective, start, args=(x, y), jac=True, method="L-BFGS-B", bounds=_bounds(len(x)),
        options={"maxiter": 1000, "ftol": 1e-11, "gtol": 1e-8},
    )  # fmt: skip
    return result.x, float(result.fun)


def _objective(
    theta: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Σ Huber(log L̂ − log L) and its gradient."""
    terms = len(x)
    coefficients, exponents = theta[1 : 1 + terms, None], theta[1 + terms :, None]
    logs = np.vstack([np.full_like(y, theta[0]), coefficients - exponents * x])  # (1 + J, P)
    residual = logsumexp(logs, axis=0) - y
    pull = np.clip(residual, -HUBER_DELTA, HUBER_DELTA)  # dHuber/dresidual
    shares = softmax(logs, axis=0) * pull  # (1 + J, P)
    gradient = np.concatenate([shares.sum(axis=1), -(shares[1:] * x).sum(axis=1)])
    # Both in units of δ: the raw objective is so flat that the optimiser's tolerances would stop it early.
    return float(huber(HUBER_DELTA, residual).sum() / HUBER_DELTA), gradient / HUBER_DELTA


def _natural(theta: NDArray[np.float64], centres: NDArray[np.float64]) -> tuple[float, ...]:
    """θ in centred logs → (E, C_1…C_J, γ_1…γ_J)."""
    terms = len(centres)
    exponents = theta[1 + terms :]
    coefficients = np.exp(theta[1 : 1 + terms] + exponents * centres)
    return tuple(float(each) for each in (np.exp(theta[0]), *coefficients, *exponents))
