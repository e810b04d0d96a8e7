"""Batches drawn from domains of some size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from velocitune_core.mixture import DomainSampler

SIZES = {"code": 40, "papers": 25, "general": 7}

WEIGHTS = np.array([0.55, 0.35, 0.10])

Weights = Callable[[int], np.ndarray]


def draw(sampler: DomainSampler, batches: int, weights: np.ndarray | Weights = WEIGHTS) -> dict[str, list[int]]:
    """Return the sequences drawn from each domain; in the domain's own order where a batch holds one sequence."""
    streams: dict[str, list[int]] = defaultdict(list)
    for step in range(batches):
        domains, indices = sampler.next_batch(weights(step) if callable(weights) else weights)
        for domain, index in zip(domains, indices, strict=True):
            streams[sampler.names[domain]].append(int(index))
    return streams


def random_weights(seed: int, count: int) -> Weights:
    """Return weights that change at every step, some of them tiny."""
    return lambda step: np.random.default_rng([seed, step]).dirichlet(np.full(count, 0.5))
