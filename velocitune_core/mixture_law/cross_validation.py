"""Cross-validation over runs. Runs of one mixture are left out together: a repeated run must not predict itself."""

from __future__ import annotations

import numpy as np

from velocitune_core.mixture_law.fit_batch import Array
from velocitune_core.mixture_law.fit_sets import SetFitter
from velocitune_core.mixture_law.table import RunTable

MOST_FOLDS_OF_ONE = 32  # up to so many mixtures each is left out by itself
FOLDS = 10


def training_counts(table: RunTable, seed: int = 0) -> Array:
    """Return which runs each fold is fitted to, (F, R): 1 or 0."""
    mixtures = table.mixtures
    different = int(mixtures.max()) + 1
    folds = different if different <= MOST_FOLDS_OF_ONE else FOLDS
    fold = np.random.default_rng(seed).permutation(different) % folds
    return (fold[mixtures] != np.arange(folds)[:, None]).astype(float)


def held_out_losses(fitter: SetFitter, theta: Array, losses: Array, counts: Array) -> tuple[Array, Array]:
    """Return each run's losses by the law fitted without its fold (R, I), and θ of every fold (F, I, P).

    Args:
        fitter: the fitter of the runs.
        theta: (I, P) of all runs, where the fits begin.
        losses: (R, I).
        counts: (F, R) from `training_counts`.
    """
    found = fitter.refit(np.broadcast_to(losses, (len(counts), *losses.shape)), counts, theta)
    predicted = np.empty_like(losses)
    for training, fold in zip(counts, found, strict=True):
        left_out = training == 0
        predicted[left_out] = fitter.form.losses(fold, fitter.weights[left_out])
    return predicted, found


def mean_of_others(losses: Array, counts: Array) -> Array:
    """Return the mean loss of the runs of the other folds, (R, I): what a prediction has to be better than."""
    means = counts @ losses / counts.sum(axis=1, keepdims=True)
    return means[(counts == 0).argmax(axis=0)]
