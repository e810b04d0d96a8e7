"""What a fitted law is worth, set by set: cross-validated error, intervals of its parameters, what is only prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.fit_batch import Array
from velocitune_core.mixture_law.fit_sets import DELTA, Form
from velocitune_core.mixture_law.table import RunTable, enough_runs

KNOWN_ERROR = 0.1  # standard error of what a domain teaches, as a share of what the best teacher of the set does
TINY = 1e-9  # of the largest curvature: makes a direction that no run moves very uncertain, not infinitely


@dataclass(frozen=True)
class Parameter:
    """A parameter with the percentile interval of its bootstrap."""

    value: float
    low: float | None = None  # None without a bootstrap, and where the parameter is not known
    high: float | None = None
    known: bool = True  # False: the runs do not determine it, so that it comes from the prior


@dataclass(frozen=True)
class SetEvidence:
    """How far one held-out set's law can be trusted. Errors in nats per token, of runs that were left out."""

    error: float  # mean absolute cross-validated error
    baseline_error: float  # of the mean of the other runs
    rank_correlation: float | None  # Spearman's, of cross-validated and measured losses; None: all equal
    noise: float  # standard deviation of a run around the law
    parameters: dict[str, Parameter]
    flags: tuple[str, ...] = ()  # `too_few_runs`, `not_identified`, `measured_only`
    residual_process: bool = False  # whether a residual process is part of the law of this set

    @property
    def known_rates(self) -> dict[str, bool]:
        """Return by domain whether the runs determine its exchange rate; empty for laws without rates."""
        return {name[2:-1]: each.known for name, each in self.parameters.items() if name.startswith("a[")}


@dataclass(frozen=True)
class Identified:
    """What the runs determine of the parameters, from the curvature of the fit at its optimum."""

    leverage: Array  # (R, I) how far each run's loss moves the law's own for it: 1 leaves it no residual
    known: NDArray[np.bool_]  # (I, P) parameters that the runs determine

    @property
    def spent(self) -> Array:
        """Return the effective number of parameters (I,): what the prior decides does not count."""
        return self.leverage.sum(axis=0)


def set_flags(table: RunTable, name: str, error: float, baseline_error: float) -> tuple[str, ...]:
    """Return the flags of one set; one that no domain is named after has no training text of its own."""
    moving = int((np.ptp(table.weights, axis=0) > 0).sum())
    few = len(np.unique(table.mixtures)) < enough_runs(moving)
    flags = {
        "too_few_runs": few,
        "not_identified": not error < baseline_error,
        "measured_only": name not in table.domains,
    }
    return tuple(flag for flag, holds in flags.items() if holds)


def rank_correlation(predicted: Array, reached: Array) -> float | None:
    """Return Spearman's correlation of two lists (R,); None if one is constant."""
    ranks = np.stack([_ranks(predicted), _ranks(reached)])
    return float(np.corrcoef(ranks)[0, 1]) if (np.ptp(ranks, axis=1) > 0).all() else None


def _ranks(values: Array) -> Array:
    """Return ranks, equal values at their mean; scipy.stats takes longer to import than a law to fit."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[which]


def identified(form: Form, theta: Array, table: RunTable, scale: Array, errors: Array) -> Identified:
    """Return what the runs determine, for θ (I, P), each set's scale and root mean square cross-validated error (I,).

    All standard errors are those with all other parameters free and without the prior; the noise is that of the
    cross-validation. A domain's parameter is known if what the domain teaches has a standard error of at most a tenth
    of what the best teacher of the set does: the change of the loss at the mean mixture as its weight grows at the cost
    of all others that runs move. E is known to a tenth of what is left to learn at the mean mixture, B and β to a tenth
    of their own.
    """
    sets, parameters = theta.shape
    leverage = np.zeros((len(table.runs), sets))
    known = np.zeros((sets, parameters), dtype=bool)
    for each in np.flatnonzero(scale > 0):
        at = form.scaled(theta[[each]], 1 / scale[[each]])
        fitted, jacobian = form.curve(at, table.weights)
        residuals = fitted[0] - table.losses[:, each] / scale[each]
        trust = 1 / np.sqrt(1 + (residuals / DELTA) ** 2)
        free = np.isfinite(at[0]) & ((at > form.bounds[0]) & (at < form.bounds[1]))[0]
        rows = jacobian[0, free] * np.sqrt(trust)
        curvature = rows @ rows.T + np.diag(form.prior(at)[2][0, free] + TINY)
        leverage[:, each] = (rows * np.linalg.solve(curvature, rows)).sum(axis=0)
        known[each] = _known(form, at[0], table.weights, trust, (errors[each] / scale[each]) ** 2)
    return Identified(leverage, known)


def _known(form: Form, theta: Array, weights: Array, trust: Array, variance: float) -> NDArray[np.bool_]:
    """Return (P,) whether the runs (R, K) determine each parameter, by the delta method."""
    used, mean = np.isfinite(theta), weights.mean(axis=0)  # bimix has no rates of other domains
    jacobian = form.natural_jacobian(theta, weights)[used]
    information = (jacobian * trust) @ jacobian.T
    tiny = TINY * np.diag(information).max()
    covariance = variance * np.linalg.inv(information + tiny * np.eye(len(information)))
    others = np.where(np.ptp(weights, axis=0) > 1e-9, mean, 0.0)  # what the runs move
    against_others = np.eye(len(mean)) - others / max(others.sum(), 1e-9)
    taught = against_others @ form.slopes(theta[None], mean)[0]
    derivatives = against_others @ form.slope_derivatives(theta, mean)[:, used]
    errors = np.full(len(theta), np.inf)
    errors[used] = np.sqrt(np.diag(covariance))
    shape = len(theta) - len(mean)  # E, and in the transfer law log B and log β
    errors[shape:] = np.sqrt(np.einsum("kp,pq,kq->k", derivatives, covariance, derivatives))
    scale = np.full(len(theta), np.abs(taught).max())
    scale[:shape] = 1.0
    scale[0] = form.losses(theta[None], mean)[0] - np.exp(theta[0])
    return used & (errors <= KNOWN_ERROR * scale)
