"""Fit a law's parameters for all held-out sets, folds and resamples of a swarm, in few batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from velocitune_core.mixture_law.bimix import BiMix
from velocitune_core.mixture_law.fit_batch import Array, Problem, Solver, minimise
from velocitune_core.mixture_law.loglinear import LogLinear
from velocitune_core.mixture_law.transfer import Transfer

Form = Transfer | LogLinear  # BiMix is a Transfer
FORMS: dict[str, type[Form]] = {form.name: form for form in (Transfer, LogLinear, BiMix)}
DELTA = 0.1  # of the robust loss, in standard deviations of a set's losses
FIRST_STEPS, KEPT_STARTS = 20, 2  # all starts take these steps; only the best are followed to the end


@dataclass(frozen=True)
class SetFitter:
    """Fits one form of law to the runs of a swarm; each set is fitted by itself, in units of its standard deviation."""

    form: Form
    weights: Array  # (R, K)
    scale: Array  # (I,) standard deviation of each set's losses; 0: no run moves it

    def fit(self, losses: Array, own: list[int | None]) -> Array:
        """Return θ (I, P) for losses (R, I), from the form's starts; `own` is the domain with each set's name."""
        found = np.stack([self.form.constant(mean) for mean in losses.mean(axis=0)])
        moving = np.flatnonzero(self.scale > 0)
        values = (losses / np.where(self.scale > 0, self.scale, 1.0)).T  # (I, R)
        starts = {each: self.form.solver.starts(values[each], own[each]) for each in moving}
        for count in sorted({len(each) for each in starts.values()}):
            alike = [each for each in moving if len(starts[each]) == count]
            begun = np.stack([starts[each] for each in alike])
            best = self._minimised(values[alike], np.ones_like(values[alike]), begun)
            found[alike] = self.form.scaled(best, self.scale[alike])
        return found

    def refit(self, losses: Array, counts: Array, theta: Array) -> Array:
        """Return θ (N, I, P) for losses (N, R, I) and counts (N, R), starting from θ (I, P) of all runs."""
        found = np.tile(theta, (len(losses), 1, 1))
        moving = np.flatnonzero(self.scale > 0)
        if not len(losses) or not len(moving):
            return found
        scale, (resamples, runs) = self.scale[moving], counts.shape
        values = np.moveaxis(losses[:, :, moving] / scale, 2, 1).reshape(-1, runs)  # (N·M, R)
        start = self.form.to_solver(self.form.scaled(theta[moving], 1 / scale))
        starts = np.tile(start, (resamples, 1))[:, None]  # (N·M, 1, P)
        best = self._minimised(values, np.repeat(counts, len(moving), axis=0), starts)
        found[:, moving] = self.form.scaled(best.reshape(resamples, len(moving), -1), scale)
        return found

    def _minimised(self, values: Array, counts: Array, starts: Array) -> Array:
        """Return the best θ (M, P) of members with values and counts (M, R) and starts (M, n, P of the solver)."""
        return self.form.from_solver(_minimised(self.form.solver, self.weights, values, counts, starts))


def _minimised(solver: Solver, weights: Array, values: Array, counts: Array, starts: Array) -> Array:
    """Return the best θ (M, P) of members with values and counts (M, R) and starts (M, n, P)."""
    members, many, parameters = starts.shape
    problem = Problem(
        lambda theta: solver.curve(theta, weights), solver.prior, solver.bounds, DELTA, solver.longest_step
    )
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
