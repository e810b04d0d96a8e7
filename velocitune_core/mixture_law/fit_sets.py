"""Fit a law's parameters for all held-out sets, folds and resamples of a swarm, in few batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.bimix import BiMix
from velocitune_core.mixture_law.fit_batch import Array, Problem, minimise
from velocitune_core.mixture_law.loglinear import LogLinear
from velocitune_core.mixture_law.transfer import SHAPE, Transfer

Form = Transfer | LogLinear  # BiMix is a Transfer
FORMS: dict[str, type[Form]] = {form.name: form for form in (Transfer, LogLinear, BiMix)}
DELTA = 0.1  # of the robust loss, in standard deviations of a set's losses
FIRST_STEPS, KEPT_STARTS = 20, 2  # all starts take these steps; only the best are followed to the end
REVIVED_LOG_RATE = -2.0  # a rate that has vanished has no gradient to come back on, so a refit starts above


@dataclass(frozen=True)
class SetFitter:
    """Fits one form of law to the runs of a swarm; each set is fitted by itself, in units of its standard deviation."""

    form: Form
    weights: Array  # (R, K)
    scale: Array  # (I,) standard deviation of each set's losses; 0: no run moves it

    def fit(self, losses: Array, own: list[int | None]) -> Array:
        """Return θ (I, P) for losses (R, I), from the form's starts; `own` is the domain with each set's name."""
        if isinstance(self.form, BiMix):
            return np.stack([self._fit_bimix(losses[:, each], each, own[each]) for each in range(len(own))])
        found = np.stack([self.form.constant(mean) for mean in losses.mean(axis=0)])
        moving = np.flatnonzero(self.scale > 0)
        if len(moving):
            values = (losses / np.where(self.scale > 0, self.scale, 1.0)).T[moving]  # (M, R)
            starts = np.stack([self.form.starts(each) for each in values])
            best = _minimised(self.form, self.weights, values, np.ones_like(values), starts)
            found[moving] = self.form.scaled(best, self.scale[moving])
        return found

    def refit(self, losses: Array, counts: Array, theta: Array) -> Array:
        """Return θ (N, I, P) for losses (N, R, I) and counts (N, R), starting from θ (I, P) of all runs."""
        found = np.tile(theta, (len(losses), 1, 1))
        if not len(losses):
            return found
        moving = np.flatnonzero(self.scale > 0)
        if isinstance(self.form, BiMix):
            for each in moving:
                domain = self.form.own(theta[each])
                part = self._refit(
                    Transfer(1),
                    self.weights[:, [domain]],
                    losses,
                    counts,
                    self.form.part(theta, domain),
                    moving[moving == each],
                )
                found[:, each] = self.form.embed(part[:, 0], domain)
        elif len(moving):
            found[:, moving] = self._refit(self.form, self.weights, losses, counts, theta, moving)
        return found

    def _refit(
        self, form: Form, weights: Array, losses: Array, counts: Array, theta: Array, sets: NDArray[np.intp]
    ) -> Array:
        resamples, runs = counts.shape
        scale = self.scale[sets]
        values = np.moveaxis(losses[:, :, sets] / scale, 2, 1).reshape(-1, runs)  # (N·M, R)
        start = form.scaled(theta[sets], 1 / scale)
        if isinstance(form, Transfer):
            start[:, SHAPE:] = np.maximum(start[:, SHAPE:], REVIVED_LOG_RATE)
        starts = np.tile(start, (resamples, 1))[:, None]  # (N·M, 1, P)
        best = _minimised(form, weights, values, np.repeat(counts, len(sets), axis=0), starts)
        return form.scaled(best.reshape(resamples, len(sets), -1), scale)

    def _fit_bimix(self, losses: Array, each: int, own: int | None) -> Array:
        """Return θ (P,) of one set: of its own domain, or of the domain that explains it best."""
        form = self.form
        assert isinstance(form, BiMix)
        scale = self.scale[each]
        if scale == 0:
            return form.constant(losses.mean())
        values, part = (losses / scale)[None], Transfer(1)
        candidates = range(form.domains) if own is None else [own]
        found = []
        for domain in candidates:
            weights = self.weights[:, [domain]]
            best = _minimised(part, weights, values, np.ones_like(values), part.starts(values[0])[None])
            residuals = part.losses(best, weights)[:, 0] - values[0]
            found.append((float(np.abs(residuals).sum()), domain, best[0]))
        _, domain, theta = min(found, key=lambda candidate: candidate[:2])
        return form.embed(form.scaled(theta, scale), domain)


def _minimised(form: Form, weights: Array, values: Array, counts: Array, starts: Array) -> Array:
    """Return the best θ (M, P) of members with values and counts (M, R) and starts (M, n, P)."""
    members, many, parameters = starts.shape
    problem = Problem(lambda theta: form.curve(theta, weights), form.prior, form.bounds, DELTA, form.longest_step)
    if many > KEPT_STARTS:
        first = minimise(
            problem,
            starts.reshape(-1, parameters),
            np.repeat(values, many, axis=0),
            np.repeat(counts, many, axis=0),
            most_steps=FIRST_STEPS,
        )
        best = first.objective.reshape(members, many).argsort(axis=1, kind="stable")[:, :KEPT_STARTS]
        starts = np.take_along_axis(first.theta.reshape(members, many, parameters), best[:, :, None], axis=1)
        many = KEPT_STARTS
    ended = minimise(
        problem, starts.reshape(-1, parameters), np.repeat(values, many, axis=0), np.repeat(counts, many, axis=0)
    )
    best = ended.objective.reshape(members, many).argmin(axis=1)
    return ended.theta.reshape(members, many, parameters)[np.arange(members), best]
