"""Minimise many robust least-squares sums at once: all held-out sets, starts, folds and resamples of a fit.

A member has some twenty parameters and a few hundred points, so the overhead of a general optimiser exceeds the time of
its evaluations. Every step is taken for the whole batch in numpy, and converged members leave the batch.

The loss of a residual r is the smooth form of Huber's, δ²·(√(1 + (r/δ)²) − 1): quadratic within δ, linear beyond. The
step is that of Levenberg and Marquardt with the weights of iteratively reweighted least squares, 1/√(1 + (r/δ)²).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SLOW_STEPS = 3  # consecutive steps below the gain tolerance that end a fit
LEAST_DAMPING, MOST_DAMPING = 1e-7, 1e7
VALUES_PER_BLOCK = 32_768  # members × points per block: larger blocks do not fit in the processor's cache
USUAL_PARAMETERS = 20  # with more of them the derivatives take more memory, and a block holds fewer members

Array = NDArray[np.float64]
Curve = Callable[[Array], tuple[Array, Array]]  # θ (S, P) → values (S, R), their derivatives (S, P, R)
# θ (S, P) → value (S,), gradient (S, P), curvature (S, P) ≥ 0 of each parameter
Prior = Callable[[Array], tuple[Array, Array, Array]]


@dataclass(frozen=True)
class Problem:
    """What all members of a batch share."""

    curve: Curve
    prior: Prior
    bounds: Array  # (2, P)
    delta: float  # residuals beyond it count linearly
    longest_step: float = 2.0  # in any parameter, each a logarithm or of the size of one


class Solver(Protocol):
    """The parameters of a form of law that are fitted; most often the form itself."""

    longest_step: float
    bounds: Array  # (2, P)

    def curve(self, theta: Array, weights: Array) -> tuple[Array, Array]:
        """Return losses (S, R) and their derivatives (S, P, R) for θ (S, P) and weights (R, K)."""
        ...

    def prior(self, theta: Array) -> tuple[Array, Array, Array]:
        """Return value (S,), gradient and curvature (S, P) for losses of unit variance."""
        ...

    def starts(self, values: Array, own: int | None) -> Array:
        """Return starts (n, P) for losses (R,) of a set; `own` is the index of the domain with its name."""
        ...


@dataclass(frozen=True)
class Ended:
    """Where each member ended."""

    theta: Array  # (S, P)
    objective: Array  # (S,)


def minimise(
    problem: Problem, starts: Array, values: Array, counts: Array, *, most_steps: int = 200, gain: float = 1e-9
) -> Ended:
    """Minimise Σ_r count_r · ρ(curve(θ)_r − value_r) + prior(θ) within the bounds, from every start.

    Args:
        problem: curve, prior, bounds and δ.
        starts: (S, P), one member per row; clipped to the bounds.
        values: (S, R) what the curve should give.
        counts: (S, R) how often each member counts each point.
        most_steps: at most so many steps.
        gain: a few steps in succession that lower the objective by a smaller share end a member's fit.
    """
    per_member = values.shape[1] * max(1.0, starts.shape[1] / USUAL_PARAMETERS)
    size = max(1, int(VALUES_PER_BLOCK / per_member))
    blocks = [slice(first, first + size) for first in range(0, len(starts), size)]
    ended = [_minimise_block(problem, starts[at], values[at], counts[at], most_steps, gain) for at in blocks]
    return Ended(np.concatenate([each.theta for each in ended]), np.concatenate([each.objective for each in ended]))


@dataclass
class _Batch:
    """The members that have not converged; the first axis of every array is the member."""

    row: NDArray[np.intp]  # index of the start
    values: Array  # (S, R)
    counts: Array  # (S, R)
    damping: Array  # (S,)
    slow: NDArray[np.intp]  # (S,) consecutive steps of little gain
    theta: Array  # (S, P)
    residuals: Array  # (S, R)
    jacobian: Array  # (S, P, R)
    objective: Array  # (S,)
    prior_gradient: Array  # (S, P)
    prior_curvature: Array  # (S, P)

    def keep(self, members: NDArray[np.bool_]) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name)[members])

    def write(self, ended: Ended) -> None:
        ended.theta[self.row], ended.objective[self.row] = self.theta, self.objective


def _evaluate(problem: Problem, theta: Array, values: Array, counts: Array) -> dict[str, Array]:
    fitted, jacobian = problem.curve(theta)
    residuals = fitted - values
    value, gradient, curvature = problem.prior(theta)
    losses = problem.delta**2 * (np.sqrt(1 + (residuals / problem.delta) ** 2) - 1)
    return {
        "theta": theta,
        "residuals": residuals,
        "jacobian": jacobian,
        "objective": (counts * losses).sum(axis=1) + value,
        "prior_gradient": gradient,
        "prior_curvature": curvature,
    }


def _minimise_block(
    problem: Problem, starts: Array, values: Array, counts: Array, most_steps: int, gain: float
) -> Ended:
    members = len(starts)
    batch = _Batch(
        row=np.arange(members),
        values=values,
        counts=counts,
        damping=np.full(members, 1e-2),
        slow=np.zeros(members, dtype=np.intp),
        **_evaluate(problem, np.clip(starts, *problem.bounds), values, counts),
    )
    ended = Ended(batch.theta.copy(), batch.objective.copy())
    for _ in range(most_steps):
        done = (batch.slow >= SLOW_STEPS) | (batch.damping > MOST_DAMPING)
        if done.any():
            batch.write(ended)
            batch.keep(~done)
        if not len(batch.row):
            break
        _advance(batch, problem, gain)
    batch.write(ended)
    return ended


def _step(batch: _Batch, problem: Problem) -> Array:
    """Return the step (S, P): at most the longest in any parameter, zero where it would leave the bounds."""
    low, high = problem.bounds
    weights = batch.counts / np.sqrt(1 + (batch.residuals / problem.delta) ** 2)
    gradient = (batch.jacobian @ (weights * batch.residuals)[:, :, None])[:, :, 0] + batch.prior_gradient
    held = ((batch.theta <= low) & (gradient > 0)) | ((batch.theta >= high) & (gradient < 0))
    prior, damping = np.where(held, 1.0, batch.prior_curvature), batch.damping[:, None]
    step = -_solved(batch.jacobian, weights, prior, damping, np.where(held, 0.0, gradient), held)
    longest = np.abs(step).max(axis=1, keepdims=True)
    return step * np.minimum(1.0, problem.longest_step / np.maximum(longest, problem.longest_step))


def _solved(
    jacobian: Array, weights: Array, prior: Array, damping: Array, gradient: Array, held: NDArray[np.bool_]
) -> Array:
    """Return (H + damping · diag H)⁻¹ · gradient (S, P) with H = J W Jᵀ + diag(prior), held parameters left out.

    With more parameters than points it is solved in the points, of which there are fewer (Woodbury's identity).
    """
    parameters, points = jacobian.shape[1:]
    least = 1e-9 + 1e-6 * damping  # a vanished term has no curvature
    if parameters <= points:
        curvature = (jacobian * weights[:, None]) @ jacobian.transpose(0, 2, 1)  # (S, P, P)
        curvature *= ~held[:, :, None] & ~held[:, None, :]
        diagonal = np.einsum("spp->sp", curvature)  # a view
        diagonal += prior
        diagonal *= 1 + damping
        diagonal += least
        return np.asarray(np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0], dtype=float)
    roots = jacobian * np.where(held[:, :, None], 0.0, np.sqrt(weights)[:, None])  # (S, P, R)
    diagonal = prior * (1 + damping) + damping * (roots**2).sum(axis=2) + least
    scaled = roots / diagonal[:, :, None]
    inner = np.eye(points) + scaled.transpose(0, 2, 1) @ roots  # (S, R, R)
    by_points = np.linalg.solve(inner, scaled.transpose(0, 2, 1) @ gradient[:, :, None])
    return gradient / diagonal - (scaled @ by_points)[:, :, 0]


def _advance(batch: _Batch, problem: Problem, gain: float) -> None:
    """Take a step with the members whose objective it lowers; increase the damping of the others."""
    theta = np.clip(batch.theta + _step(batch, problem), *problem.bounds)
    there = _evaluate(problem, theta, batch.values, batch.counts)
    gained = batch.objective - there["objective"]
    better = gained > 0
    slow = better & (gained <= gain * np.abs(batch.objective))
    batch.slow = np.where(better, np.where(slow, batch.slow + 1, 0), batch.slow)
    batch.damping = np.where(better, np.maximum(batch.damping / 5, LEAST_DAMPING), batch.damping * 4)
    for name, found in there.items():
        if better.all():
            setattr(batch, name, found)
        else:
            getattr(batch, name)[better] = found[better]
