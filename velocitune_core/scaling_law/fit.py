"""Fit scaling laws of the loss: L(D) for one model size, L(N, D) = E + A/N^α + B/D^β for several.

For one model size there are two laws, both E + B/(D + D0)^β: `chinchilla` has D0 = 0; `anchored`, for continual
pretraining, passes through the initial loss at D = 0, L(D) = E + (ℓ_init − E)·(1 + D/D0)^(−β).

The fit is that of Hoffmann et al. (2022, arXiv 2203.15556, section 3.3 and appendix D.3): in log space, log L̂ =
log-sum-exp of the log terms, Huber loss with δ = 1e-3 on log L̂ − log L, from many starts. The *sum* of the Huber losses
is minimised: their mean is so small that optimisers stop early.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from velocitune_core.scaling_law.curves import Anchored, Powers, power_law
from velocitune_core.scaling_law.huber import Array, minimise_huber

LawName = Literal["chinchilla", "anchored"]
PARAMETERS = 3  # of a law for one model size; the noise can be estimated only from more points than that
REFIT_STARTS = 3  # per resample: with few points there are several minima, each through three of them
MOST_NOISE = 1.0  # bound on the noise of a resample, in log loss


class ScalingLawError(ValueError):
    """Points to which no scaling law can be fitted."""


def _none(columns: int) -> Array:
    return np.empty((0, columns))


@dataclass(frozen=True)
class ScalingLawFit:
    """L(D) = E + B / (D + D0)^beta, L in nats per token, D in tokens."""

    E: float
    B: float
    beta: float
    objective: float  # sum of Huber losses at the optimum, in units of δ
    at_bound: bool  # a parameter is at a bound of its range, so the points do not determine it
    law: LawName = "chinchilla"
    D0: float = 0.0  # tokens
    noise: float | None = None  # standard deviation of log losses around the law; None: too few points to estimate it
    samples: Array = field(default_factory=lambda: _none(4), repr=False)  # (R, 4) E, B, beta, D0 of the resamples
    deviations: Array = field(default_factory=lambda: np.empty(0), repr=False)  # (R,) of a new log loss from each law

    def predict(self, tokens: ArrayLike) -> Array:
        """Return the loss after `tokens` tokens in nats per token, same shape."""
        return power_law(tokens, self.E, self.B, self.beta, self.D0)

    def interval(self, tokens: float, level: float = 0.95) -> tuple[float, float] | None:
        """Return the percentile interval of the loss of one new run of `tokens` tokens, its own noise included.

        None without a bootstrap.
        """
        return _quantiles(power_law(tokens, *self.samples.T) * np.exp(self.deviations), level)

    @property
    def standard_errors(self) -> dict[str, float]:
        """Return the standard deviation of each free parameter over the resamples; empty without a bootstrap."""
        fixed = "D0" if self.law == "chinchilla" else "B"  # anchored: B follows from the others
        return _deviations({name: values for name, values in self._columns().items() if name != fixed})

    def _columns(self) -> dict[str, Array]:
        return dict(zip(("E", "B", "beta", "D0"), self.samples.T, strict=True))


@dataclass(frozen=True)
class ChinchillaFit:
    """L(N, D) = E + A / N^alpha + B / D^beta, L in nats per token, N in parameters, D in tokens."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float  # as in ScalingLawFit
    at_bound: bool  # as in ScalingLawFit
    samples: Array = field(default_factory=lambda: _none(5), repr=False)  # (R, 5) E, A, B, alpha, beta
    deviations: Array = field(default_factory=lambda: np.empty(0), repr=False)  # (R,) of a new log loss from each law

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        """Return the loss of a model of `params` parameters after `tokens` tokens, in nats per token."""
        n, d = np.asarray(params, dtype=float), np.asarray(tokens, dtype=float)
        return self.E + self.A * n**-self.alpha + self.B * d**-self.beta

    def interval(self, params: float, tokens: float, level: float = 0.95) -> tuple[float, float] | None:
        """Return the percentile interval of the loss of one new such run; None without a bootstrap."""
        e, a, b, alpha, beta = self.samples.T
        losses = e + a * float(params) ** -alpha + b * float(tokens) ** -beta
        return _quantiles(losses * np.exp(self.deviations), level)

    @property
    def standard_errors(self) -> dict[str, float]:
        """Return the standard deviation of each parameter over the resamples; empty without a bootstrap."""
        return _deviations(self._columns())

    def parameter_intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Return the percentile interval of each parameter; empty without a bootstrap."""
        found = {name: _quantiles(values, level) for name, values in self._columns().items()}
        return {name: interval for name, interval in found.items() if interval is not None}

    def _columns(self) -> dict[str, Array]:
        return dict(zip(("E", "A", "B", "alpha", "beta"), self.samples.T, strict=True))


def fit_scaling_law(
    tokens: ArrayLike,
    losses: ArrayLike,
    *,
    law: LawName = "chinchilla",
    initial_loss: float | None = None,
    bootstrap: int = 0,
    seed: int = 0,
) -> ScalingLawFit:
    """Fit the loss of one model size against its training tokens.

    The bootstrap is parametric: the law's own losses with new noise. A few points cannot be resampled: most draws from
    four hold fewer than the three different points that a law needs, or exactly three, which fit without error.
    The noise is normal in log loss. Few points determine its size poorly, so each resample draws its own, √(Σ r² / χ²),
    with as many degrees of freedom as there are points beyond the law's three parameters. For a law linear in its
    parameters that is Student's t interval, wide for one degree of freedom. With none there is no bootstrap.
    Points of one run are not independent, so their interval is too narrow.

    Args:
        tokens: (P,) training tokens of each point.
        losses: (P,) held-out loss of each point, nats per token.
        law: `chinchilla` or `anchored`, which needs the `initial_loss` and cannot fit losses above it.
        initial_loss: loss before training, nats per token.
        bootstrap: resamples for `interval` and the standard errors; 0 for none.
        seed: of the resampling.

    Raises ScalingLawError for fewer than three different token counts, values that are not positive and finite, or an
    unknown law.
    """
    sizes, losses = _check("tokens", tokens, losses)
    shape = _shape(law, sizes, initial_loss)
    y = np.log(losses)
    theta, objective, at_bound = _fit(shape, shape.starts(y), y)
    noise, samples, deviations = _resampled(shape, theta, y, bootstrap, seed)
    e, b, beta, shift = (float(each) for each in shape.natural(theta[None])[0])
    return ScalingLawFit(e, b, beta, objective, at_bound, law, shift, noise, samples, deviations)


def fit_chinchilla(
    params: ArrayLike, tokens: ArrayLike, losses: ArrayLike, *, bootstrap: int = 0, seed: int = 0
) -> ChinchillaFit:
    """Fit L(N, D) = E + A / N^α + B / D^β from Hoffmann et al.'s 4,500 starts.

    The bootstrap resamples the points, as Besiroglu et al. (2024, arXiv 2404.10102) do; the noise of a new run is drawn
    from the residuals.

    Args:
        params, tokens, losses: (P,) model parameters, training tokens and held-out loss (nats per token) of each point.
        bootstrap: resamples for `interval` and the standard errors; 0 for none.
        seed: of the resampling.

    Raises ScalingLawError as `fit_scaling_law` does.
    """
    models, _ = _check("params", params, losses)
    sizes, losses = _check("tokens", tokens, losses)
    shape = Powers(np.log(np.stack([models, sizes])))
    y = np.log(losses)
    theta, objective, at_bound = _fit(shape, shape.published_starts(), y)
    samples, deviations = _none(5), np.empty(0)
    if bootstrap:
        random = np.random.default_rng(seed)
        counts = random.multinomial(len(y), np.full(len(y), 1 / len(y)), size=bootstrap).astype(float)
        refits = minimise_huber(shape.curve, np.tile(theta, (bootstrap, 1)), y, *shape.bounds, counts=counts)
        samples = shape.natural(refits.theta)[:, :5]
        deviations = random.choice(y - shape.curve(theta[None])[0][0], size=bootstrap)
    e, a, b, alpha, beta = (float(each) for each in shape.natural(theta[None])[0, :5])
    return ChinchillaFit(e, a, b, alpha, beta, objective, at_bound, samples, deviations)


def _fit(shape: Powers | Anchored, starts: Array, y: Array) -> tuple[Array, float, bool]:
    """Return θ (K,) of the best minimum, its objective, and whether it is at a bound."""
    minima = minimise_huber(shape.curve, starts, y, *shape.bounds)
    theta = minima.theta[minima.best]
    return theta, float(minima.objective[minima.best]), bool(np.isclose(theta, shape.bounds, atol=1e-6).any())


def _shape(law: str, sizes: Array, initial_loss: float | None) -> Powers | Anchored:
    """Return the law's curve over token counts (P,)."""
    if law == "anchored":
        return Anchored(np.log(sizes), _checked_initial(initial_loss))
    if law == "chinchilla":
        return Powers(np.log(sizes)[None])
    raise ScalingLawError(f"law {law!r} is none of chinchilla, anchored; choose one of them")


def _resampled(
    shape: Powers | Anchored, theta: Array, y: Array, bootstrap: int, seed: int
) -> tuple[float | None, Array, Array]:
    """Return the noise of log losses y (P,) around a law θ, and as ScalingLawFit has them `samples` and `deviations`.

    See `fit_scaling_law` for how the parametric bootstrap draws them.
    """
    spare = len(y) - PARAMETERS
    if not spare:
        return None, _none(4), np.empty(0)
    fitted = shape.curve(theta[None])[0][0]
    noise = float(np.sqrt(((fitted - y) ** 2).sum() / spare))
    if not bootstrap:
        return noise, _none(4), np.empty(0)
    random = np.random.default_rng(seed)
    scale = np.minimum(noise * np.sqrt(spare / random.chisquare(spare, size=bootstrap)), MOST_NOISE)
    drawn = fitted + scale[:, None] * random.standard_normal((bootstrap, len(y)))
    samples = shape.natural(_refit(shape, theta, drawn, random))
    return noise, samples, scale * random.standard_normal(bootstrap)


def _refit(shape: Powers | Anchored, theta: Array, drawn: Array, random: np.random.Generator) -> Array:
    """Return θ (R, K) of the best minimum of each resample (R, P); starts are the fit and points around it."""
    resamples, parameters = len(drawn), len(theta)
    around = theta + random.standard_normal((REFIT_STARTS - 1, parameters)) * 0.7
    starts = np.tile(np.vstack([theta, around]), (resamples, 1))
    minima = minimise_huber(shape.curve, starts, np.repeat(drawn, REFIT_STARTS, axis=0), *shape.bounds)
    best = minima.objective.reshape(resamples, REFIT_STARTS).argmin(axis=1)
    return minima.theta.reshape(resamples, REFIT_STARTS, parameters)[np.arange(resamples), best]


def _quantiles(values: Array, level: float) -> tuple[float, float] | None:
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _deviations(columns: dict[str, Array]) -> dict[str, float]:
    return {name: float(values.std()) for name, values in columns.items() if len(values)}


def _check(name: str, sizes: ArrayLike, losses: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sizes, losses = np.asarray(sizes, dtype=float), np.asarray(losses, dtype=float)
    if sizes.ndim != 1 or sizes.shape != losses.shape:
        raise ScalingLawError(
            f"{name} and losses must be two lists of one length, got shapes {sizes.shape} and {losses.shape}; "
            "give one loss per point"
        )
    for what, values in ((name, sizes), ("losses", losses)):
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            raise ScalingLawError(
                f"{what}: {values[wrong].tolist()} at {np.flatnonzero(wrong).tolist()} must be positive and finite; "
                "leave these points out or measure them again"
            )
    if len(np.unique(sizes)) < PARAMETERS:
        raise ScalingLawError(
            f"{name}: a law needs at least three different sizes, got {np.unique(sizes).tolist()}; add points"
        )
    return sizes, losses


def _checked_initial(initial_loss: float | None) -> float:
    if initial_loss is None or not (np.isfinite(initial_loss) and initial_loss > 0):
        raise ScalingLawError(
            f"initial_loss {initial_loss} must be positive and finite for law 'anchored'; give the loss before training"
        )
    return float(initial_loss)
