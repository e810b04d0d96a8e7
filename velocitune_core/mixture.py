"""Which sequence of which domain fills which slot of which step.

Nothing is shuffled in memory: the i-th draw from a domain is *computed*, by a keyed permutation of its indices. So the
state is one count and one credit per domain whatever the corpus holds, a batch costs the same for 10^3 and 10^9
sequences, and new weights act on the very next batch. Draws are computed some way ahead, as numpy does many at the
price of one; how many a domain will give, and when, is decided batch by batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEISTEL_ROUNDS = 4
DRAWS_AHEAD = 1024  # of each domain, or a batch of them; 8 bytes each
SLOTS_AHEAD = 16384  # of the next batches together
GOLDEN_RATIO = np.uint64(
    0x9E3779B97F4A7C15
)  # 2^64 / golden ratio: spreads consecutive integers over the whole key space


class MixtureError(ValueError):
    """Sizes, weights or a sampler state that cannot make a batch."""


def original_weights(configured: Mapping[str, float] | None, sizes: Mapping[str, int]) -> dict[str, float]:
    """The original weights w_0: as configured, or each domain's share of the training sequences; sums to 1."""
    shares = {name: float((configured or sizes)[name]) for name in sizes}
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


class DomainSampler:
    """Draws batches from domains by weight, without replacement within an epoch of a domain.

    Counts per batch are whole numbers. What a domain was owed and not given is carried over as credit, so over time
    every domain gets its share to within about one sequence, however small its weight is. Each domain's order is
    seeded by its name: reordering or adding domains changes no other domain's order.

    Args:
        sizes: sequences per domain, by name, K of them.
        seed: of all orders.
        batch_size: sequences per batch, over all processes.
        fraction: draw from a random sub-sample of every domain that holds this share of it (at least one sequence).
        max_epochs: a domain that was seen this often has weight 0 from then on; the others take its share.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        seed: int,
        batch_size: int,
        fraction: float = 1.0,
        max_epochs: float | None = None,
    ) -> None:
        if not sizes or min(sizes.values()) < 1:
            raise MixtureError(f"sizes {dict(sizes)}: every domain needs at least one sequence")
        if batch_size < 1 or not 0 < fraction <= 1:
            raise MixtureError(f"batch_size {batch_size} must be positive and fraction {fraction} in (0, 1]")
        self.names = list(sizes)
        self._seed, self._batch_size, self._fraction = seed, batch_size, fraction
        self._full_sizes = np.array(list(sizes.values()), dtype=np.uint64)  # (K,)
        self.sizes = np.maximum(1, np.round(fraction * self._full_sizes.astype(float))).astype(np.int64)  # (K,)
        unlimited = np.iinfo(np.int64).max
        limits = np.full_like(self.sizes, unlimited) if max_epochs is None else np.ceil(max_epochs * self.sizes)
        self._limits = limits.astype(np.int64)  # (K,) sequences that may be drawn in all
        self._order_keys = np.array([_key(seed, name, "order") for name in self.names], dtype=np.uint64)
        self._subset_keys = np.array([_key(seed, name, "subset") for name in self.names], dtype=np.uint64)
        self._slot_key = _key(seed, "", "slots")
        self._step = 0
        self._drawn = np.zeros(len(self.names), dtype=np.int64)
        self._credit: NDArray[np.float64] = np.zeros(len(self.names))
        self._forget_what_was_computed_ahead()

    @property
    def drawn(self) -> NDArray[np.int64]:
        """Sequences drawn so far per domain, (K,)."""
        return self._drawn.copy()

    @property
    def epochs(self) -> NDArray[np.float64]:
        """Epochs seen so far per domain, (K,)."""
        return self._drawn / self.sizes

    @property
    def exhausted(self) -> list[str]:
        """Domains that `max_epochs` has stopped."""
        return [name for name, stopped in zip(self.names, self._drawn >= self._limits, strict=True) if stopped]

    def next_batch(self, weights: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fill one batch under `weights` (K,), in the order of `sizes`.

        Returns:
            domains (batch_size,): which domain fills each slot, as its position in `sizes`.
            indices (batch_size,): which sequence of that domain.

        Raises MixtureError for weights that are no distribution over the domains, or if every domain with a weight has
        reached `max_epochs`.
        """
        counts = self._counts(self._effective(np.asarray(weights, dtype=float)))
        self._compute_ahead(counts)
        slots = self._slots[self._step - self._slots_from]
        given = self._all_domains.repeat(counts)
        offsets = self._drawn - self._ahead_from - (counts.cumsum() - counts)
        domains, indices = np.empty((2, self._batch_size), dtype=np.int64)
        domains[slots] = given
        indices[slots] = self._ahead[given, self._all_slots + offsets[given]]
        self._drawn += counts
        self._step += 1
        return domains, indices

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready; its size depends on the number of domains alone."""
        return {
            "seed": self._seed,
            "batch_size": self._batch_size,
            "fraction": self._fraction,
            "step": self._step,
            "drawn": dict(zip(self.names, self._drawn.tolist(), strict=True)),
            "credit": dict(zip(self.names, self._credit.tolist(), strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state; domains are matched by name, a new one starts at its beginning.

        Raises MixtureError if the state belongs to another seed, batch size or fraction, or to a domain that is gone.
        """
        for field, ours in (("seed", self._seed), ("batch_size", self._batch_size), ("fraction", self._fraction)):
            if state[field] != ours:
                raise MixtureError(f"sampler state has {field} {state[field]}, this run {ours}; start a new run")
        if gone := sorted(set(state["drawn"]) - set(self.names)):
            raise MixtureError(f"sampler state has domains {gone} that this run lacks; start a new run")
        self._step = int(state["step"])
        self._drawn = np.array([state["drawn"].get(name, 0) for name in self.names], dtype=np.int64)
        self._credit = np.array([state["credit"].get(name, 0.0) for name in self.names])
        self._forget_what_was_computed_ahead()

    def _effective(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights (K,) with exhausted domains at 0, renormalised."""
        if weights.shape != self._drawn.shape or not weights.min() >= 0 or not abs(weights.sum() - 1) <= 1e-5:
            raise MixtureError(
                f"weights {weights.tolist()} must be {len(self.names)} finite, non-negative numbers that sum to 1"
            )
        effective = np.where(self._drawn < self._limits, weights, 0.0)
        total = effective.sum()
        if total == 0:
            raise MixtureError(f"max_epochs has stopped every domain that has a weight: {self.exhausted}")
        return effective / total

    def _counts(self, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Sequences per domain (K,) that sum to the batch size; carries the rest over as credit."""
        drawing = weights > 0
        due: NDArray[np.float64] = (self._credit + self._batch_size * weights) * drawing
        room = (self._limits - self._drawn) * drawing
        counts = np.minimum(np.maximum(np.floor(due), 0.0).astype(np.int64), room)
        while missing := self._batch_size - int(counts.sum()):
            step = 1 if missing > 0 else -1
            (candidates,) = (counts < room if step > 0 else counts > 0).nonzero()
            if not candidates.size:
                raise MixtureError(f"max_epochs leaves too few sequences for a batch of {self._batch_size}")
            by_debt = candidates[(step * (counts - due)[candidates]).argsort(kind="stable")]
            counts[by_debt[: abs(missing)]] += step
        self._credit = due - counts.astype(float)
        return counts

    def _compute_ahead(self, counts: NDArray[np.int64]) -> None:
        """Make sure that the next draws of every domain, `counts` (K,), and this batch's order are there."""
        (short,) = ((self._drawn + counts > self._ahead_until) & (counts > 0)).nonzero()
        if short.size:
            self._ahead_from[short] = self._drawn[short]
            self._ahead_until[short] = self._drawn[short] + self._ahead.shape[1]
            ordinals = self._drawn[short, None] + np.arange(self._ahead.shape[1])
            domains = np.broadcast_to(short[:, None], ordinals.shape)
            self._ahead[short] = self._locate(domains.ravel(), ordinals.ravel()).reshape(ordinals.shape)
        if self._step >= self._slots_from + len(self._slots):
            self._slots_from = self._step
            steps = self._step + np.arange(max(1, SLOTS_AHEAD // self._batch_size))
            keys = np.repeat(_mix(self._slot_key, steps), self._batch_size)
            order = permute(np.tile(self._all_slots, len(steps)), self._batch_size, keys)
            self._slots = order.reshape(len(steps), self._batch_size)

    def _forget_what_was_computed_ahead(self) -> None:
        depth = max(DRAWS_AHEAD, self._batch_size)
        self._all_domains, self._all_slots = np.arange(len(self.names)), np.arange(self._batch_size)
        self._ahead = np.zeros((len(self.names), depth), dtype=np.int64)  # sequences of the next draws
        self._ahead_from = np.zeros(len(self.names), dtype=np.int64)  # which draw the first of them is
        self._ahead_until = np.zeros(len(self.names), dtype=np.int64)  # and which one follows the last
        self._slots = np.zeros((0, self._batch_size), dtype=np.int64)  # where each sequence of the next batches goes
        self._slots_from = 0

    def _locate(self, domains: NDArray[np.int64], ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sequence behind the n-th draw from a domain, (batch_size,) each."""
        epochs, positions = np.divmod(ordinals, self.sizes[domains])
        indices = permute(positions, self.sizes[domains], _mix(self._order_keys[domains], epochs))
        if self._fraction < 1:
            indices = permute(indices, self._full_sizes[domains], self._subset_keys[domains])
        return indices


def permute(positions: ArrayLike, sizes: ArrayLike, keys: ArrayLike) -> NDArray[np.int64]:
    """A keyed pseudo-random bijection of range(size), evaluated at `positions`; all arguments broadcast to (n,).

    A Feistel network over the next power of four, walked until it falls into the range again (Black and Rogaway, 2002,
    "Ciphers with arbitrary finite domains"): at most four walks on average, nothing stored.
    """
    positions, sizes, keys = np.broadcast_arrays(
        np.asarray(positions, np.uint64), np.asarray(sizes, np.uint64), np.asarray(keys, np.uint64)
    )
    bits = np.frexp((sizes - np.uint64(1)).astype(float))[1]  # bit length, exact below 2^53
    half = np.maximum(1, (bits + 1) // 2).astype(np.uint64)
    image = positions.copy()
    walking = np.arange(image.size)
    while walking.size:
        image[walking] = _feistel(image[walking], half[walking], keys[walking])
        walking = walking[image[walking] >= sizes[walking]]
    return image.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for number in range(FEISTEL_ROUNDS):
        left, right = right, left ^ (_mix(keys ^ right, number) & mask)
    return (left << half) | right


def _mix(key: NDArray[np.uint64] | np.uint64, number: ArrayLike) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: a well-mixed 64-bit word for each (key, number)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the point
        word = np.asarray(key, np.uint64) + (np.asarray(number).astype(np.uint64) + np.uint64(1)) * GOLDEN_RATIO
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))


def _key(seed: int, name: str, purpose: str) -> np.uint64:
    digest = blake2b(f"{seed}\0{name}\0{purpose}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
