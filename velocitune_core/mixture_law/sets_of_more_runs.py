"""A law some of whose sets were measured by more runs than the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.fit_batch import Array
from velocitune_core.mixture_law.law import MixtureLaw
from velocitune_core.mixture_law.table import MixtureLawError


def with_sets_of(law: MixtureLaw, more: MixtureLaw) -> MixtureLaw:
    """Return a law in which the sets that `more` has are those of `more`, a law of the same runs and further ones.

    The runs, and so what they cover, stay those of `law`. Resamples of the two are independent of each other.

    Args:
        law: of all sets.
        more: of some of them, of the same form and domains, with as many resamples; its runs are those of `law`, and
            further ones.

    Raises MixtureLawError for laws of unlike form, domains or runs, and for a residual process.
    """
    alike = (law.name, law.domains, law.resamples) == (more.name, more.domains, more.resamples)
    comparable = alike and set(more.sets) <= set(law.sets) and not (law.residual or more.residual)
    rows = _rows_of(law, more) if comparable else None
    if rows is None:
        raise MixtureLawError(
            "with_sets_of: fit both laws in the same form to the same domains, with as many resamples and no residual "
            "process; the second to some of the sets of the first, and to its runs and further ones"
        )
    at = [law.sets.index(name) for name in more.sets]

    def put(own: Array, others: Array, axis: int) -> Array:
        found = np.moveaxis(own.copy(), axis, 0)
        found[at] = np.moveaxis(others, axis, 0)
        return np.moveaxis(found, 0, axis)

    return replace(
        law,
        evidence=law.evidence | more.evidence,
        cross_validated=put(law.cross_validated, more.cross_validated[rows], 1),
        theta=put(law.theta, more.theta, 0),
        samples=put(law.samples, more.samples, 1),
        noise=put(law.noise, more.noise, 0),
        spare=put(law.spare, more.spare, 0),
    )


def _rows_of(law: MixtureLaw, more: MixtureLaw) -> NDArray[np.intp] | None:
    """Return the row of each run of `law` in `more`; None if one is not there."""
    at = [law.sets.index(name) for name in more.sets]
    runs = np.hstack([law.runs.weights, law.runs.losses[:, at]])
    row_of = {tuple(run): row for row, run in enumerate(np.hstack([more.runs.weights, more.runs.losses]))}
    rows = [row_of[run] for run in map(tuple, runs) if run in row_of]
    return np.array(rows) if len(rows) == len(runs) else None
