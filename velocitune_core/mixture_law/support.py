"""Where runs say something about mixtures: the region of weights in which a law's optimum is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from velocitune_core.mixture_law.table import MixtureLawError, read_weights

Array = NDArray[np.float64]
Table = Any  # a DataFrame, or a mapping, or a list of mappings; pandas is not required
REACH = 0.7  # of the outermost run's distance: further out the optimum is optimistic (benchmarks/trust_region.py)
COVERED = 1 + 1e-6  # the largest distance of what runs cover, with rounding
THINNEST = 1e-3  # of the mean variance, in directions in which the runs do not differ


@dataclass(frozen=True)
class Support:
    """The part of the simplex that runs cover, and the smaller part in which an optimum is searched.

    Distance is Mahalanobis' in the weights, from the mean of the runs, in units of the outermost run's: the leverage of
    a linear regression. Runs cover what is no further out than they are, within each domain's range in the runs. An
    optimum keeps to `reach` of that distance. Both regions are convex.
    """

    low: Array  # (K,) least weight of each domain in the runs
    high: Array  # (K,) largest
    centre: Array  # (K,)
    precision: Array  # (K, K), scaled so that the outermost run has distance 1
    reach: float = REACH

    @classmethod
    def around(cls, weights: ArrayLike) -> Support:
        """Return the region that runs of these weights (R, K) cover."""
        runs = np.asarray(weights, dtype=float)
        centre = runs.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(runs.T, bias=True).reshape(runs.shape[1], -1))
        least = max(THINNEST * values.mean(), 1e-12)
        precision = (vectors / np.maximum(values, least)) @ vectors.T
        off = runs - centre
        outermost = max(float(np.einsum("rk,kl,rl->r", off, precision, off).max()), 1e-12)
        return cls(runs.min(axis=0), runs.max(axis=0), centre, precision / outermost)

    def reaching(self, mixture: Array) -> Support:
        """Return the region with a reach as far as a mixture (K,), if the runs cover it and it lies beyond the reach.

        Initial weights are always to be had, so no optimum may be worse because they lie at the edge of the runs.
        """
        if not self.distance(mixture) <= 1 + 1e-9 or self.excess(mixture) <= 0:
            return self
        return replace(self, reach=float(np.sqrt(self.excess(mixture) + self.reach**2)))

    def distance(self, weights: ArrayLike) -> Array:
        """Return how far out mixtures (..., K) are: at most 1 for those that the runs cover."""
        weights = np.asarray(weights, dtype=float)
        off = weights - self.centre
        far = np.sqrt(np.maximum(np.einsum("...k,kl,...l->...", off, self.precision, off), 0.0))
        room = np.maximum(np.minimum(self.centre - self.low, self.high - self.centre), 1e-9)
        beyond = np.maximum(self.low - weights, weights - self.high) / room  # above 0 outside a domain's range
        return np.maximum(far, np.where(beyond.max(axis=-1) > 1e-6, 1 + beyond.max(axis=-1), 0.0))

    def excess(self, weights: Array) -> float:
        """Return the squared distance of one mixture (K,) minus that of the reach, ranges aside."""
        off = weights - self.centre
        return float(off @ self.precision @ off) - self.reach**2

    def excess_gradient(self, weights: Array) -> Array:
        """Return the gradient (K,) of `excess`."""
        return 2.0 * self.precision @ (weights - self.centre)


def support_of(support: Support | Table | None, domains: Sequence[str], runs: Array) -> Support:
    """Return the region of some runs' weights: a `Support`, a table by name, or None for the law's own runs (R, K)."""
    if support is None:
        return Support.around(runs)
    if isinstance(support, Support):
        return support
    return Support.around(weights_by_name(support, domains))


def weights_by_name(table: Table, domains: Sequence[str]) -> Array:
    """Return weights (R, K) in the order of `domains`.

    Args:
        table: a DataFrame with a column per domain, {domain: (R,)}, or a list of {domain: weight}; a domain that a
            run of a list does not name has weight 0 there.

    Raises MixtureLawError for anything else, names that differ, and weights that are no shares.
    """
    if isinstance(table, Sequence) and table and all(isinstance(run, Mapping) for run in table):
        names = {name for run in table for name in run} | set(domains)
        table = {name: [run.get(name, 0.0) for run in table] for name in sorted(names)}
    elif not (isinstance(table, Mapping) or hasattr(table, "columns")):
        kind = "an empty list" if isinstance(table, list) and not table else f"a {type(table).__name__} without names"
        raise MixtureLawError(
            f"support is {kind}; give a DataFrame, {{domain: weights}} or a list of {{domain: weight}}"
        )
    return np.atleast_2d(read_weights(domains, table))
