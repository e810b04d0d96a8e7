"""A Gaussian process on what a law leaves over, for swarms of over 100 runs, where it predicts runs that were left out.

Mixtures are near each other in the logarithm of their weights and in their square root: the kernel is
exp(−Σ_k (Δ log(w_k + ε))² / 2s² − Σ_k (Δ √(w_k + ε))² / 2t²). Lengths and noise are chosen per set by leave-one-out
error, which the kernel matrix gives in closed form (Rasmussen and Williams 2006, equation 5.12).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.fit_batch import Array

LEAST_RUNS = 101
EPSILON = 1e-3  # weights below it count as equal
LOG_LENGTHS = SQRT_LENGTHS = (0.5, 1.0, 2.0, 4.0)  # squared, relative to the median distance of two runs
NOISES = (0.03, 0.1, 0.3, 1.0, 2.0)  # variance relative to that of the process


@dataclass(frozen=True)
class ResidualProcess:
    """The mean of the process, Σ_r α_ir k_i(w, w_r); zero for sets without one."""

    runs: Array  # (R, K) weights
    precisions: Array  # (I, 2) of the logarithms and of the square roots
    alpha: Array  # (I, R)
    samples: Array  # (B, I, R) α of the bootstrap's resamples

    @property
    def used(self) -> NDArray[np.intp]:
        """Return the indices of the sets that have a process."""
        return np.flatnonzero(self.alpha.any(axis=1))

    def losses(self, weights: Array) -> Array:
        """Return what the process adds to the losses, (..., I), at weights (..., K)."""
        found = np.zeros((*weights.shape[:-1], len(self.alpha)))
        for each in self.used:
            found[..., each] = _kernel(weights, self.runs, self.precisions[each]) @ self.alpha[each]
        return found

    def slopes(self, weights: Array) -> Array:
        """Return the derivatives by the weights, (..., I, K), at weights (..., K)."""
        found = np.zeros((*weights.shape[:-1], len(self.alpha), weights.shape[-1]))
        logs, roots = np.log(weights + EPSILON), np.sqrt(weights + EPSILON)
        log_runs, root_runs = np.log(self.runs + EPSILON), np.sqrt(self.runs + EPSILON)
        for each in self.used:
            pull = _kernel(weights, self.runs, self.precisions[each]) * self.alpha[each]  # (..., R)
            total = pull.sum(axis=-1, keepdims=True)
            log_slope = (total * logs - pull @ log_runs) / (weights + EPSILON)
            root_slope = (total * roots - pull @ root_runs) / (2 * roots)
            found[..., each, :] = -self.precisions[each, 0] * log_slope - self.precisions[each, 1] * root_slope
        return found

    def resampled_losses(self, weights: Array) -> Array:
        """Return what the processes of the resamples add, (B, ..., I), at weights (..., K)."""
        found = np.zeros((len(self.samples), *weights.shape[:-1], len(self.alpha)))
        for each in self.used:
            kernel = _kernel(weights, self.runs, self.precisions[each])
            found[..., each] = np.moveaxis(kernel @ self.samples[:, each].T, -1, 0)
        return found

    def resampled(self, index: int) -> ResidualProcess:
        """Return the process of one resample."""
        return ResidualProcess(self.runs, self.precisions, self.samples[index], self.samples[:0])


@dataclass(frozen=True)
class ProcessFit:
    """Lengths and noise of the process of every set, and which sets it serves."""

    runs: Array  # (R, K) weights
    precisions: Array  # (I, 2)
    noises: Array  # (I,)
    kept: Array  # (I,) whether it predicts runs that were left out better than the law alone
    held_out: Array  # (R, I) what it adds to each run's losses by the fits without its fold; zero where not kept

    def process(self, residuals: Array, resampled: Array) -> ResidualProcess:
        """Return the process for residuals (R, I), and of the resamples (B, R, I)."""
        alpha, samples = np.zeros(residuals.T.shape), np.zeros((len(resampled), *residuals.T.shape))
        for each in np.flatnonzero(self.kept):
            targets = np.vstack([residuals[:, each], resampled[:, :, each]])  # (1 + B, R)
            solved = self.solve(int(each), np.ones(len(self.runs), dtype=bool), targets.T).T
            alpha[each], samples[:, each] = solved[0], solved[1:]
        return ResidualProcess(self.runs, self.precisions, alpha, samples)

    def solve(self, each: int, rows: NDArray[np.bool_], residuals: Array) -> Array:
        """Return α (n, ...) of one set for residuals (n, ...) of the n runs in `rows` (R,)."""
        kernel = _kernel(self.runs[rows], self.runs[rows], self.precisions[each])
        return np.linalg.solve(kernel + self.noises[each] * np.eye(len(kernel)), residuals)


def fit_process(weights: Array, residuals: Array, counts: Array, fold_residuals: Array) -> ProcessFit:
    """Choose the process of every set, and say by cross-validation where it is of use.

    It is kept where it lowers the mean squared error of runs left out by more than the standard error of that gain.

    Args:
        weights: (R, K).
        residuals: (R, I) losses less the law of all runs.
        counts: (F, R) which runs each fold was fitted to.
        fold_residuals: (F, R, I) losses less the law of each fold.
    """
    precisions, noises = _chosen(weights, residuals)
    sets = residuals.shape[1]
    fit = ProcessFit(weights, precisions, noises, np.zeros(sets, dtype=bool), np.zeros_like(residuals))
    added, errors = np.zeros_like(residuals), np.zeros_like(residuals)
    for training, left in zip(counts > 0, fold_residuals, strict=True):
        errors[~training] = left[~training]
        for each in range(sets):
            alpha = fit.solve(each, training, left[training, each])
            added[~training, each] = _kernel(weights[~training], weights[training], precisions[each]) @ alpha
    gains = errors**2 - (errors - added) ** 2
    kept = gains.mean(axis=0) > gains.std(axis=0, ddof=1) / np.sqrt(len(gains))
    return ProcessFit(weights, precisions, noises, kept, np.where(kept, added, 0.0))


def _chosen(weights: Array, residuals: Array) -> tuple[Array, Array]:
    """Return precisions (I, 2) and noises (I,) of the smallest leave-one-out error."""
    logs, roots = (_distances(feature(weights + EPSILON), feature(weights + EPSILON)) for feature in (np.log, np.sqrt))
    medians = np.median(logs), np.median(roots)
    sets = residuals.shape[1]
    best, precisions, noises = np.full(sets, np.inf), np.zeros((sets, 2)), np.zeros(sets)
    for log_length in LOG_LENGTHS:
        for root_length in SQRT_LENGTHS:
            precision = np.array([1 / (log_length * medians[0]), 1 / (root_length * medians[1])])
            values, vectors = np.linalg.eigh(np.exp(-(precision[0] * logs + precision[1] * roots) / 2))
            turned, squares = vectors.T @ residuals, vectors**2
            for noise in NOISES:
                inverse = 1 / (np.maximum(values, 0.0) + noise)
                left_out = (vectors @ (inverse[:, None] * turned)) / (squares @ inverse)[:, None]
                error = (left_out**2).mean(axis=0)
                better = error < best
                best[better], precisions[better], noises[better] = error[better], precision, noise
    return precisions, noises


def _kernel(weights: Array, runs: Array, precision: Array) -> Array:
    """Return the kernel (..., R) between weights (..., K) and runs (R, K)."""
    logs, roots = (_distances(feature(weights + EPSILON), feature(runs + EPSILON)) for feature in (np.log, np.sqrt))
    return np.exp(-(precision[0] * logs + precision[1] * roots) / 2)


def _distances(points: Array, others: Array) -> Array:
    """Return squared distances (..., R) between points (..., K) and others (R, K)."""
    squares = (points**2).sum(axis=-1)[..., None] + (others**2).sum(axis=-1) - 2 * points @ others.T
    return np.maximum(squares, 0.0)
