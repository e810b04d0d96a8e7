"""Before a batch is drawn: the initial weights of the domains, and how much each may give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray


class MixtureError(ValueError):
    """Sizes, weights or a sampler state that no batch can be drawn with."""


def initial_domain_weights(configured: Mapping[str, float] | None, sizes: Mapping[str, int]) -> dict[str, float]:
    """Return the initial domain weights w_0 by domain, in the order of `sizes`; they sum to 1.

    Args:
        configured: relative weights by domain; None: each domain's share of the training sequences.
        sizes: training sequences per domain.
    """
    shares = {name: float((configured or sizes)[name]) for name in sizes}
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def domain_limits(
    sizes: ArrayLike, fraction: float = 1.0, max_epochs: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sequences that each domain draws from, and how many draws it may give in all; (K,) each.

    Args:
        sizes: (K,) sequences of the domains; the other arguments are those of `DomainSampler`.
    """
    drawn_from = np.maximum(1, np.round(fraction * np.asarray(sizes, dtype=float))).astype(np.int64)
    if max_epochs is None:
        return drawn_from, np.full_like(drawn_from, np.iinfo(np.int64).max)
    return drawn_from, np.ceil(max_epochs * drawn_from).astype(np.int64)
