"""A batch sampler of labelled examples, and what it draws."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from velocitune_core import MixtureBatchSampler

LABELS = ["cat", "dog", "cat", "cow", "cat", "dog", "cat"] * 9

WEIGHTS = {"cat": 0.5, "dog": 0.3, "cow": 0.2}

NO_CATS = {"cat": 0.0, "dog": 0.6, "cow": 0.4}

Layout = tuple[int, int]  # world size, micro-batch size

LAYOUTS = [(1, 24), (1, 6), (2, 12), (2, 4), (4, 2), (3, 1)]


def sampler(**changed: Any) -> MixtureBatchSampler:
    settings = {"weights": WEIGHTS, "batch_size": 24, "seed": 5, **changed}
    return MixtureBatchSampler(settings.pop("groups", LABELS), **settings)


def take(ours: MixtureBatchSampler, count: int) -> list[list[int]]:
    return list(itertools.islice(ours, count))


def shares(batches: list[list[int]]) -> dict[str, float]:
    drawn = Counter(LABELS[example] for batch in batches for example in batch)
    return {name: drawn[name] / drawn.total() for name in WEIGHTS}
