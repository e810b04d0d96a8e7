"""Minimise many small Huber losses at once: one batch holds all starts of a fit, or all its resamples.

A fit has three to five parameters and a few hundred points at most, so the overhead of a general optimiser exceeds the
time of its evaluations. Here every step is taken for the whole batch in numpy, and converged members leave the batch.

The step is damped Newton with Gauss-Newton curvature. Huber's own curvature (1 within δ, 0 beyond) is exact but zero
where most residuals are large; that of iteratively reweighted least squares (δ/|r| beyond δ) never oversteps but
converges slowly. Each member combines both by a damping that decreases with every step that lowers the objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

HUBER_DELTA = 1e-3
MOST_STEPS = 200
LONGEST_STEP = 2.0  # in any parameter: all are logarithms or exponents
SLOW_STEPS = 3  # consecutive steps below GAIN_TOLERANCE that end a fit
GRADIENT_TOLERANCE = 1e-7  # in units of δ
GAIN_TOLERANCE = 1e-11  # of the objective
LEAST_DAMPING, MOST_DAMPING = 1e-7, 1e9
VALUES_PER_BLOCK = 32_768  # members × points per block: larger blocks do not fit in the processor's cache

Array = NDArray[np.float64]
Curve = Callable[[Array], tuple[Array, Array]]  # θ (S, K) → log losses (S, P), their derivatives (S, K, P)


@dataclass(frozen=True)
class Minima:
    """The minimum that each member reached."""

    theta: Array  # (S, K)
    objective: Array  # (S,)

    @property
    def best(self) -> int:
        """Index of the member with the smallest objective."""
        return int(self.objective.argmin())


def minimise_huber(
    curve: Curve, starts: Array, log_losses: Array, low: Array, high: Array, *, counts: Array | None = None
) -> Minima:
    """Minimise Σ_p count_p · Huber(curve(θ)_p − log loss_p) / δ within low ≤ θ ≤ high from each of the starts.

    Args:
        curve: log losses (S, P) and derivatives (S, K, P) for θ (S, K).
        starts: (S, K), one member per row; clipped to the bounds.
        log_losses: (P,) for all members or (S, P).
        low, high: (K,) bounds.
        counts: (S, P) how often each member counts each point; None: once.
    """
    shape = (len(starts), np.shape(log_losses)[-1])
    y, counts = np.broadcast_to(log_losses, shape), np.broadcast_to(1.0 if counts is None else counts, shape)
    size = max(1, VALUES_PER_BLOCK // shape[1])
    blocks = [slice(first, first + size) for first in range(0, len(starts), size)]
    minima = [_minimise_block(curve, starts[rows], y[rows], counts[rows], low, high) for rows in blocks]
    return Minima(np.concatenate([each.theta for each in minima]), np.concatenate([each.objective for each in minima]))


def objective_and_gradient(residuals: Array, jacobian: Array, counts: Array) -> tuple[Array, Array]:
    """Return objective (S,) and gradient (S, K) in units of δ: tolerances would end fits of the bare sum early."""
    inner = np.minimum(np.abs(residuals), HUBER_DELTA)
    objective = (counts * inner * (np.abs(residuals) - inner / 2)).sum(axis=1) / HUBER_DELTA
    slopes = counts * np.clip(residuals / HUBER_DELTA, -1, 1)
    return objective, (jacobian @ slopes[:, :, None])[:, :, 0]


@dataclass
class _Batch:
    """The members that have not converged; the first axis of every array is the member."""

    row: NDArray[np.intp]  # index of the start
    theta: Array  # (S, K)
    y: Array  # (S, P)
    counts: Array  # (S, P)
    residuals: Array  # (S, P)
    jacobian: Array  # (S, K, P)
    objective: Array  # (S,)
    gradient: Array  # (S, K)
    damping: Array  # (S,)
    slow: NDArray[np.intp]  # (S,) consecutive steps below GAIN_TOLERANCE

    def keep(self, members: NDArray[np.bool_]) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name)[members])


def _minimise_block(curve: Curve, starts: Array, y: Array, counts: Array, low: Array, high: Array) -> Minima:
    batch = _started(curve, np.clip(starts, low, high), y, counts)
    ended = Minima(batch.theta.copy(), batch.objective.copy())
    for _ in range(MOST_STEPS):
        # A parameter at a bound stays there while the gradient points outside.
        held = ((batch.theta <= low) & (batch.gradient > 0)) | ((batch.theta >= high) & (batch.gradient < 0))
        steepest = np.where(held, 0.0, np.abs(batch.gradient)).max(axis=1)
        done = (steepest < GRADIENT_TOLERANCE) | (batch.slow >= SLOW_STEPS) | (batch.damping > MOST_DAMPING)
        if done.any():
            _write(ended, batch)
            batch.keep(~done)
            held = held[~done]
        if not len(batch.row):
            break
        _advance(batch, curve, np.clip(batch.theta + _step(batch, held), low, high))
    _write(ended, batch)
    return ended


def _started(curve: Curve, theta: Array, y: Array, counts: Array) -> _Batch:
    fitted, jacobian = curve(theta)
    objective, gradient = objective_and_gradient(fitted - y, jacobian, counts)
    members = len(theta)
    return _Batch(
        row=np.arange(members),
        theta=theta,
        y=y,
        counts=counts,
        residuals=fitted - y,
        jacobian=jacobian,
        objective=objective,
        gradient=gradient,
        damping=np.ones(members),
        slow=np.zeros(members, dtype=np.intp),
    )


def _write(ended: Minima, batch: _Batch) -> None:
    ended.theta[batch.row], ended.objective[batch.row] = batch.theta, batch.objective


def _step(batch: _Batch, held: NDArray[np.bool_]) -> Array:
    """Return the step (S, K): at most LONGEST_STEP in any parameter, zero where held."""
    far = np.abs(batch.residuals)
    weights = batch.counts * (
        (far <= HUBER_DELTA) / HUBER_DELTA + batch.damping[:, None] / np.maximum(far, HUBER_DELTA)
    )
    curvature = (batch.jacobian * weights[:, None]) @ batch.jacobian.transpose(0, 2, 1)  # (S, K, K)
    free = ~held
    curvature *= free[:, :, None] & free[:, None, :]
    diagonal = np.einsum("skk->sk", curvature)  # a view
    diagonal *= 1 + 1e-10
    diagonal += 1e-9 * (1 + batch.damping[:, None]) + held  # a vanished term has no curvature
    step = -np.linalg.solve(curvature, np.where(held, 0.0, batch.gradient)[:, :, None])[:, :, 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    return step * np.minimum(1.0, LONGEST_STEP / np.maximum(longest, LONGEST_STEP))


def _advance(batch: _Batch, curve: Curve, theta: Array) -> None:
    """Move members whose objective is lower at `theta` there; increase the damping of the others."""
    fitted, jacobian = curve(theta)
    residuals = fitted - batch.y
    objective, gradient = objective_and_gradient(residuals, jacobian, batch.counts)
    better = objective < batch.objective
    slow = better & (batch.objective - objective <= GAIN_TOLERANCE * batch.objective)
    batch.slow = np.where(better, np.where(slow, batch.slow + 1, 0), batch.slow)
    batch.damping = np.where(better, np.maximum(batch.damping / 5, LEAST_DAMPING), batch.damping * 5)
    batch.theta = np.where(better[:, None], theta, batch.theta)
    batch.residuals = np.where(better[:, None], residuals, batch.residuals)
    batch.objective = np.where(better, objective, batch.objective)
    batch.gradient = np.where(better[:, None], gradient, batch.gradient)
    if better.all():
        batch.jacobian = jacobian
    else:
        batch.jacobian[better] = jacobian[better]
