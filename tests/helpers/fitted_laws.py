"""Laws fitted to drawn swarms, and mixtures that they were not fitted to."""

from __future__ import annotations

import numpy as np
from drawn_swarm import DrawnSwarm

from velocitune_core.mixture_law import MixtureLaw, fit_mixture_law
from velocitune_core.mixture_law.fit_sets import FORMS

LAWS = tuple(FORMS)


def fitted(swarm: DrawnSwarm, **options: object) -> MixtureLaw:
    return fit_mixture_law(*swarm.columns, **options)


def new_mixtures(seed: int, domains: int, count: int = 50) -> np.ndarray:
    return np.random.default_rng(1000 + seed).dirichlet(np.full(domains, 3.0), size=count)
