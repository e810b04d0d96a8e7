"""A fitted law of the losses over domain weights, and how to fit it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from velocitune_core.mixture_law.cross_validation import held_out_losses, mean_of_others, training_counts
from velocitune_core.mixture_law.evidence import (
    Identified,
    Parameter,
    SetEvidence,
    identified,
    rank_correlation,
    set_flags,
)
from velocitune_core.mixture_law.fit_batch import Array
from velocitune_core.mixture_law.fit_sets import FORMS, Form, SetFitter
from velocitune_core.mixture_law.residual import LEAST_RUNS, ProcessFit, ResidualProcess, fit_process
from velocitune_core.mixture_law.support import Support
from velocitune_core.mixture_law.table import MixtureLawError, RunTable, read_runs, read_weights
from velocitune_core.spelling import did_you_mean

LawName = Literal["transfer", "loglinear", "bimix", "auto"]
LEVEL = 0.95  # of the intervals of parameters


@dataclass(frozen=True)
class MixtureLaw:
    """Losses of I held-out sets as functions of the weights of K domains, fitted to the runs of one swarm.

    Weights given as arrays are (..., K) in the order of `domains`, losses (..., I) in the order of `sets`.
    """

    name: str  # transfer | loglinear | bimix
    domains: tuple[str, ...]  # K, sorted
    sets: tuple[str, ...]  # I, sorted
    runs: RunTable  # what the law was fitted to
    evidence: dict[str, SetEvidence]  # by set; empty for the law of a resample
    cross_validated: Array = field(repr=False)  # (R, I) losses of `runs` by the law fitted without their fold
    theta: Array = field(repr=False)  # (I, P) parameters, as the form of the law reads them
    samples: Array = field(repr=False)  # (B, I, P) parameters of the resamples
    noise: Array = field(repr=False)  # (I,) standard deviation of a run around the law, nats per token
    spare: Array = field(repr=False)  # (I,) degrees of freedom of the noise
    form: Form = field(repr=False)
    residual: ResidualProcess | None = field(default=None, repr=False)  # what the form of the law leaves over
    scale: float = field(default=1.0, repr=False)  # factor of the losses, and what is added to them: a law moved to
    shift: Array = field(default_factory=lambda: np.zeros(1), repr=False)  # (I,) another budget (budget.py)
    shift_samples: Array = field(default_factory=lambda: np.zeros((1, 1)), repr=False)  # (B, I) of resamples

    @property
    def convex(self) -> bool:
        """Return whether the losses are convex in the weights on the simplex."""
        return self.form.convex and self.residual is None

    @property
    def resamples(self) -> int:
        """Return the number of bootstrap resamples; 0 without a bootstrap."""
        return len(self.samples)

    def losses(self, weights: ArrayLike) -> Array:
        """Return losses (..., I) in nats per token for weights (..., K)."""
        weights = self._read(weights)
        found = self.form.losses(self.theta, weights)
        if self.residual is not None:
            found = found + self.residual.losses(weights)
        return self.scale * found + self.shift

    def jacobian(self, weights: ArrayLike) -> Array:
        """Return the derivatives of the losses by the weights (..., I, K) for weights (..., K)."""
        weights = self._read(weights)
        found = self.form.slopes(self.theta, weights)
        return self.scale * (found if self.residual is None else found + self.residual.slopes(weights))

    def resampled(self, index: int) -> MixtureLaw:
        """Return the law of one bootstrap resample, without evidence of its own."""
        return replace(
            self,
            theta=self.samples[index],
            samples=self.samples[:0],
            evidence={},
            residual=None if self.residual is None else self.residual.resampled(index),
            shift=self.shift_samples[index % len(self.shift_samples)],
        )

    def resampled_losses(self, weights: ArrayLike) -> Array:
        """Return the losses of all resamples (B, ..., I) for weights (..., K)."""
        weights = self._read(weights)
        resamples, sets, parameters = self.samples.shape
        flat = self.form.losses(self.samples.reshape(-1, parameters), weights)  # (..., B·I)
        found = np.moveaxis(flat.reshape(*weights.shape[:-1], resamples, sets), -2, 0)
        if self.residual is not None:
            found = found + self.residual.resampled_losses(weights)
        shift = self.shift_samples.reshape(-1, *[1] * (found.ndim - 2), self.shift_samples.shape[-1])
        return self.scale * found + shift

    def predict(self, weights: object) -> dict[str, Array]:
        """Return the losses by set for weights by domain: a DataFrame or {domain: (M,) or a number}."""
        found = self.losses(read_weights(self.domains, weights))
        return {name: found[..., each] for each, name in enumerate(self.sets)}

    def interval(self, weights: object, level: float = 0.95, *, seed: int = 0) -> dict[str, tuple[Array, Array]]:
        """Return by set the percentile interval of a new run's losses, its noise included, for weights by domain.

        Raises MixtureLawError without a bootstrap, and for a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise MixtureLawError(f"interval: level {level} is not between 0 and 1; give 0.95 for 95 %")
        if not self.resamples:
            raise MixtureLawError("interval: the law has no bootstrap; fit it with bootstrap=200")
        drawn = self.resampled_losses(read_weights(self.domains, weights))
        drawn = drawn + self.run_noise(drawn.shape, seed=seed)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return {name: (low[..., each], high[..., each]) for each, name in enumerate(self.sets)}

    def run_noise(self, shape: tuple[int, ...], *, seed: int = 0) -> Array:
        """Return draws (B, ..., I) of what a new run adds to each resample's losses, nats per token."""
        random = np.random.default_rng(seed)
        scale = self.noise * np.sqrt(self.spare / random.chisquare(self.spare, (self.resamples, len(self.sets))))
        spread = scale.reshape(self.resamples, *[1] * (len(shape) - 2), len(self.sets))
        return spread * random.standard_normal(shape)

    def extrapolates(self, weights: ArrayLike) -> np.ndarray:
        """Return (...) whether weights (..., K) lie outside what the runs cover (`Support`)."""
        return Support.around(self.runs.weights).distance(self._read(weights)) > 1 + 1e-9

    def _read(self, weights: ArrayLike) -> Array:
        """Return weights (..., K) as an array.

        Raises MixtureLawError for another number of domains.
        """
        found = np.asarray(weights, dtype=float)
        if found.shape[-1:] != (len(self.domains),):
            raise MixtureLawError(
                f"weights have the shape {found.shape}; the last axis must be the {len(self.domains)} domains of the "
                f"law in the order of law.domains, or use predict({{domain: weight}})"
            )
        return found


def fit_mixture_law(
    weights: object,
    losses: object,
    *,
    law: LawName = "transfer",
    bootstrap: int = 0,
    seed: int = 0,
    residual: bool = False,
) -> MixtureLaw:
    """Fit a law of every held-out set's loss to the domain weights of a swarm of runs.

    The bootstrap resamples residuals: to the law's own losses it adds those of one run for all sets together, each by
    the law fitted without that run. Runs cannot be resampled: of 24 a draw holds 15 different ones.

    Args:
        weights: DataFrame with a column per domain or {domain: (R,)}; shares that sum to 1 in every run.
        losses: DataFrame with a column per held-out set or {set: (R,)}; nats per token. Rows are joined by index labels
            when both are DataFrames, else by position.
        law: `transfer`, `loglinear`, `bimix`, or `auto`: the one with the smallest cross-validated error.
        bootstrap: resamples for intervals; 0 for none.
        seed: of the resampling.
        residual: with over 100 runs, add a Gaussian process on the residuals to every set where it predicts runs that
            were left out better than the law alone. Such a law is not convex.

    Raises MixtureLawError for an unknown law, a bootstrap that is no number of resamples, and all that is wrong with
    the table (`read_runs`).
    """
    if law not in {*FORMS, "auto"}:
        meant = did_you_mean(law, [*FORMS, "auto"])
        raise MixtureLawError(f"law {law!r} is none of {', '.join(FORMS)}, auto; choose one of them{meant}")
    if not isinstance(bootstrap, Integral) or isinstance(bootstrap, bool) or bootstrap < 0:
        raise MixtureLawError(f"bootstrap is {bootstrap!r}; give a whole number of resamples, 0 for none")
    table = read_runs(weights, losses)
    fits = [_Fit(table, name) for name in (FORMS if law == "auto" else [law])]
    best = min(fits, key=lambda fit: fit.relative_error)
    if residual and len(table.runs) >= LEAST_RUNS:
        best.add_process()
    return best.law(bootstrap, np.random.default_rng(seed))


class _Fit:
    """One law fitted to the runs, with what is known of it."""

    def __init__(self, table: RunTable, name: str) -> None:
        self.table, self.name = table, name
        scale = table.losses.std(axis=0)
        self.fitter = SetFitter(FORMS[name](len(table.domains)), table.weights, np.where(scale > 1e-12, scale, 0.0))
        own = [table.domains.index(each) if each in table.domains else None for each in table.sets]
        self.theta = self.fitter.fit(table.losses, own)
        self.counts = training_counts(table)
        self.predicted, self.folds = held_out_losses(self.fitter, self.theta, table.losses, self.counts)
        self.baseline_errors = np.abs(mean_of_others(table.losses, self.counts) - table.losses).mean(axis=0)
        self.process: ProcessFit | None = None

    @property
    def errors(self) -> Array:
        """Return the mean absolute cross-validated error (I,)."""
        return np.abs(self.predicted - self.table.losses).mean(axis=0)

    @property
    def rms_errors(self) -> Array:
        """Return the root mean square cross-validated error (I,)."""
        return np.sqrt(((self.predicted - self.table.losses) ** 2).mean(axis=0))

    @property
    def relative_error(self) -> float:
        """Return the cross-validated error relative to that of the mean, averaged over the sets that runs move."""
        moving = self.fitter.scale > 0
        return float((self.errors[moving] / self.baseline_errors[moving]).mean()) if moving.any() else 0.0

    def add_process(self) -> None:
        """Add a process on the residuals to the sets where it is of use."""
        table, form = self.table, self.fitter.form
        residuals = table.losses - form.losses(self.theta, table.weights)
        of_folds = np.stack([table.losses - form.losses(theta, table.weights) for theta in self.folds])
        process = fit_process(table.weights, residuals, self.counts, of_folds)
        if process.kept.any():
            self.process = process
            self.predicted = self.predicted + process.held_out

    def law(self, bootstrap: int, random: np.random.Generator) -> MixtureLaw:
        """Return the law with its evidence."""
        table, form = self.table, self.fitter.form
        known = identified(form, self.theta, table, self.fitter.scale, self.rms_errors)
        spare = np.maximum(len(table.runs) - known.spent, 1.0)
        fitted = form.losses(self.theta, table.weights)
        residuals = table.losses - fitted
        enlarged = residuals * np.sqrt(len(table.runs) / spare)  # by what the parameters took from them
        left_out = table.losses - self.predicted
        if self.process is not None:  # the process takes too much of its own residuals
            fitted = fitted + self.process.process(residuals, np.empty((0, *residuals.shape))).losses(table.weights)
            enlarged = np.where(self.process.kept, left_out, enlarged)
        noise = np.sqrt((enlarged**2).mean(axis=0))
        rows = random.integers(len(left_out), size=(bootstrap, len(left_out)))
        drawn = fitted + left_out[rows]  # (B, R, I)
        samples = self.fitter.refit(drawn, np.ones(rows.shape), self.theta)
        return MixtureLaw(
            name=self.name,
            domains=table.domains,
            sets=table.sets,
            runs=table,
            evidence=self._evidence(known, noise, samples),
            cross_validated=self.predicted,
            theta=self.theta,
            samples=samples,
            noise=noise,
            spare=spare,
            form=form,
            residual=self._residual(residuals, drawn, samples),
        )

    def _residual(self, residuals: Array, drawn: Array, samples: Array) -> ResidualProcess | None:
        if self.process is None:
            return None
        form, weights = self.fitter.form, self.table.weights
        left = [losses - form.losses(theta, weights) for losses, theta in zip(drawn, samples, strict=True)]
        return self.process.process(residuals, np.array(left).reshape(drawn.shape))

    def _evidence(self, known: Identified, noise: Array, samples: Array) -> dict[str, SetEvidence]:
        found = {}
        for each, name in enumerate(self.table.sets):
            error, baseline = float(self.errors[each]), float(self.baseline_errors[each])
            found[name] = SetEvidence(
                error=error,
                baseline_error=baseline,
                rank_correlation=rank_correlation(self.predicted[:, each], self.table.losses[:, each]),
                noise=float(noise[each]),
                parameters=self._parameters(each, known, samples),
                flags=set_flags(self.table, name, error, baseline),
                residual_process=self.process is not None and bool(self.process.kept[each]),
            )
        return found

    def _parameters(self, each: int, known: Identified, samples: Array) -> dict[str, Parameter]:
        form, domains = self.fitter.form, self.table.domains
        values, drawn = form.named(self.theta[each], domains), form.named(samples[:, each], domains)
        found = {}
        for (name, value), determined in zip(values.items(), known.known[each], strict=True):
            low = high = None
            if determined and len(samples):
                low, high = (float(end) for end in np.quantile(drawn[name], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
            found[name] = Parameter(float(value), low, high, bool(determined))
        return found
