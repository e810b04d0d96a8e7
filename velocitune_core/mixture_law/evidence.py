"""What a fitted law is worth, set by set: cross-validated error, intervals of its parameters, what is only prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.fit_batch import Array
from velocitune_core.mixture_law.fit_sets import DELTA, Form
from velocitune_core.mixture_law.table import RunTable, enough_runs
from velocitune_core.mixture_law.transfer import SHAPE, Transfer

KNOWN_ERROR = 0.1  # standard error of what a domain teaches, as a share of what the best teacher of the set does
TINY = 1e-9  # of the largest curvature: makes a direction that no run moves very uncertain, not infinitely


@dataclass(frozen=True)
class Parameter:
    """A parameter with the percentile interval of its bootstrap."""

    value: float
    low: float | None = None  # None without a bootstrap
    high: float | None = None
    known: bool = True  # False: an exchange rate that the runs do not determine, so that it comes from the prior


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

    spent: Array  # (I,) effective number of parameters: what the prior decides does not count
    known: NDArray[np.bool_]  # (I, K) exchange rates that the runs determine


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

    What a domain teaches is the change of the loss at the mean mixture as its weight grows at the cost of all others.
    Its exchange rate is known if the standard error of that, with all other parameters free and without the prior, is
    at most a tenth of what the best teacher of the set does. The noise is that of the cross-validation.
    """
    sets = len(theta)
    spent, known = np.zeros(sets), np.zeros((sets, form.domains), dtype=bool)
    for each in np.flatnonzero(scale > 0):
        at = form.scaled(theta[[each]], 1 / scale[[each]])
        fitted, jacobian = form.curve(at, table.weights)
        residuals = fitted[0] - table.losses[:, each] / scale[each]
        trust = 1 / np.sqrt(1 + (residuals / DELTA) ** 2)
        free = np.isfinite(at[0]) & ((at > form.bounds[0]) & (at < form.bounds[1]))[0]
        information = (jacobian[0, free] * trust) @ jacobian[0, free].T
        prior = np.diag(form.prior(at)[2][0, free])
        spent[each] = np.trace(np.linalg.solve(information + prior + TINY * np.eye(len(prior)), information))
        if isinstance(form, Transfer):
            known[each] = _known_rates(at[0], table.weights, trust, (errors[each] / scale[each]) ** 2)
    return Identified(spent, known)


def _known_rates(theta: Array, weights: Array, trust: Array, variance: float) -> NDArray[np.bool_]:
    """Return (K,) whether the runs (R, K) determine what each domain teaches, by the delta method.

    The parameters are E, log B, log β and the rates themselves: the logarithm of a rate that has vanished says nothing.
    """
    rates, beta, mean = np.exp(theta[SHAPE:]), np.exp(theta[2]), weights.mean(axis=0)
    effective = 1 + weights @ rates
    learnable = np.exp(theta[1]) * effective**-beta
    steepness = -beta * learnable / effective  # (R,) by the effective tokens
    jacobian = np.vstack(
        [np.ones_like(learnable), learnable, -beta * np.log(effective) * learnable, steepness * weights.T]
    )
    information = (jacobian * trust) @ jacobian.T
    tiny = TINY * np.diag(information).max()
    covariance = variance * np.linalg.inv(information + tiny * np.eye(len(information)))
    taught, by_parameters = _taught(theta, mean)
    errors = np.sqrt(np.einsum("kp,pq,kq->k", by_parameters, covariance, by_parameters))
    return errors <= KNOWN_ERROR * np.abs(taught).max()


def _taught(theta: Array, mean: Array) -> tuple[Array, Array]:
    """Return what each domain teaches at the mean mixture (K,), and that by E, log B, log β and rates (K, P)."""
    rates, beta = np.exp(theta[SHAPE:]), np.exp(theta[2])
    effective = 1 + mean @ rates
    steepness = -beta * np.exp(theta[1]) * effective ** (-beta - 1)
    slopes = steepness * rates
    by_rates = steepness * np.eye(len(rates)) - (beta + 1) / effective * np.outer(slopes, mean)
    derivatives = np.column_stack([np.zeros_like(slopes), slopes, slopes * (1 - beta * np.log(effective)), by_rates])
    others = np.eye(len(rates)) - mean  # against the mean over the mixture
    return others @ slopes, others @ derivatives
