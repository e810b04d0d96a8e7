"""BiMix: a power law in the share of one domain, L_i(w) = E_i + B_i · (1 + a_i w_i)^(−β_i).

It is the transfer law with one exchange rate per set: that of the domain with the set's name. A set without a domain of
its name takes the domain that explains its losses best.
"""

from __future__ import annotations

import numpy as np

from velocitune_core.mixture_law.fit_batch import Array
from velocitune_core.mixture_law.transfer import SHAPE, Transfer


class BiMix(Transfer):
    """θ as in the transfer law; the log rates of all other domains are −∞."""

    name = "bimix"

    def embed(self, theta: Array, domain: int) -> Array:
        """Return θ (..., P) for θ (..., 4) of the law in the share of one domain, the index of which is given."""
        full = np.full((*theta.shape[:-1], SHAPE + self.domains), -np.inf)
        full[..., :SHAPE] = theta[..., :SHAPE]
        full[..., SHAPE + domain] = theta[..., SHAPE]
        return full

    def own(self, theta: Array) -> int:
        """Return the index of the domain of θ (P,)."""
        return int(np.argmax(theta[SHAPE:]))

    def part(self, theta: Array, domain: int) -> Array:
        """Return θ (..., 4) of the law in the share of that domain."""
        return np.concatenate([theta[..., :SHAPE], theta[..., SHAPE + domain, None]], axis=-1)
