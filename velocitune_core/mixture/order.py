"""Which sequence each draw from a domain gives, and what of a step does not depend on weights; both computed ahead.

A computation of many values takes hardly longer than that of one. Nothing here is state: the values follow from keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture.permutation import key, permute, words

DRAWS_AHEAD = 128  # of a domain
STEPS_AHEAD, VALUES_AHEAD = 64, 2**15  # at most


class DrawOrder:
    """The order of every domain's sequences, another one in each epoch.

    Args:
        full_sizes: (K,) sequences of the domains.
        sizes: (K,) how many of them are drawn from.
        subset: whether these are a random sub-sample.
    """

    def __init__(
        self,
        names: Sequence[str],
        seed: int,
        full_sizes: NDArray[np.int64],
        sizes: NDArray[np.int64],
        *,
        subset: bool,
    ) -> None:
        self._full_sizes, self._sizes, self._is_subset = full_sizes, sizes, subset
        self._order_keys = np.array([key(seed, name, "order") for name in names], dtype=np.uint64)  # (K,)
        self._subset_keys = np.array([key(seed, name, "subset") for name in names], dtype=np.uint64)  # (K,)
        self._first = np.full(len(names), -DRAWS_AHEAD)  # (K,) ordinal of each domain's first value in `_ahead`
        self._ahead = np.empty((len(names), DRAWS_AHEAD), dtype=np.int64)

    def indices(self, domains: NDArray[np.int64], ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which sequence the n-th draw from a domain gives; all arrays are (batch_size,)."""
        if len(domains) > DRAWS_AHEAD:
            return self._computed(domains, ordinals)
        columns = ordinals - self._first[domains]
        if len(missing := domains[(columns < 0) | (columns >= DRAWS_AHEAD)]):
            starts = dict(zip(domains[::-1].tolist(), ordinals[::-1].tolist(), strict=True))  # the first of each
            self._compute_ahead({domain: starts[domain] for domain in missing.tolist()})
            columns = ordinals - self._first[domains]
        return self._ahead[domains, columns]

    def _compute_ahead(self, starts: dict[int, int]) -> None:
        """Compute the draws of some domains from an ordinal on."""
        domains, firsts = np.array(list(starts)), np.array(list(starts.values()))
        ordinals = (firsts[:, None] + np.arange(DRAWS_AHEAD)).flatten()
        self._ahead[domains] = self._computed(domains.repeat(DRAWS_AHEAD), ordinals).reshape(-1, DRAWS_AHEAD)
        self._first[domains] = firsts

    def _computed(self, domains: NDArray[np.int64], ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
        sizes = self._sizes[domains]
        epochs, positions = np.divmod(ordinals, sizes)
        indices = permute(positions, sizes, words(self._order_keys[domains], epochs))
        if self._is_subset:
            indices = permute(indices, self._full_sizes[domains], self._subset_keys[domains])
        return indices


class Step(NamedTuple):
    """What seed, names and the number of a step decide, whatever the weights are."""

    turns: NDArray[np.int64]  # (K,) positions of the domains, shuffled by name
    start: float  # of a systematic sample, in (0, 1)
    slots: NDArray[np.int64]  # (batch_size,) slot of each draw


class StepOrder:
    """The steps of a run."""

    def __init__(self, names: Sequence[str], seed: int, batch_size: int) -> None:
        self._turn_keys = np.array([key(seed, name, "turn") for name in names], dtype=np.uint64)  # (K,)
        self._start_key, self._slot_key = key(seed, "", "start"), key(seed, "", "slots")
        self._batch_size = batch_size
        self._count = min(STEPS_AHEAD, max(1, VALUES_AHEAD // max(len(names), batch_size)))
        self._first = 0
        self._ahead: list[Step] = []

    def __getitem__(self, step: int) -> Step:
        if not 0 <= step - self._first < len(self._ahead):
            self._first, self._ahead = step, self._computed(np.arange(step, step + self._count))
        return self._ahead[step - self._first]

    def _computed(self, steps: NDArray[np.int64]) -> list[Step]:
        turns = words(self._turn_keys, steps[:, None]).argsort(axis=1)
        starts = ((words(self._start_key, steps) >> np.uint64(12)).astype(float) + 0.5) / 2.0**52
        numbers = np.tile(np.arange(self._batch_size), len(steps))
        keys = words(self._slot_key, steps).repeat(self._batch_size)
        slots = permute(numbers, self._batch_size, keys).reshape(len(steps), -1)
        return [Step(*each) for each in zip(turns, starts.tolist(), slots, strict=True)]
