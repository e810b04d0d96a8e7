"""Choose which sequence of which domain fills each slot of each step.

Nothing is shuffled in memory: the i-th draw from a domain is *computed*, by a keyed permutation of its indices. The
state is one count and one credit per domain whatever the corpus holds, a batch costs the same for 10^3 and 10^9
sequences, and new weights act on the very next batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEISTEL_ROUNDS = 4
WEIGHT_SUM_TOLERANCE = 1e-5
SHARPNESS = 4.0  # of chances over fractions: more keeps domains closer to their share, less mixes batches better
WHOLE = 1e-9  # sequences: a due as close as this below a whole number counts as that number
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads consecutive integers over all 64-bit keys


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


class DomainSampler:
    """Draw batches from domains by weight, without replacement within an epoch of a domain.

    Counts per batch are whole numbers. What rounding withholds from a domain is carried over as credit, and which
    domains are rounded up is a systematic sample over a permutation of the domains, keyed by name, seed and step. So a
    batch is a sample of the mixture, and over time every domain gets its share, however small its weight: to within
    1.5 sequences at every step, as measured, while the same domains have a weight.

    The order of `sizes` decides nothing: orders, credits and slots follow from names. Reordering domains changes no
    batch, and adding one changes no other domain's order.

    Args:
        sizes: sequences per domain, by name, K of them.
        seed: of all orders.
        batch_size: sequences per batch, over all ranks.
        fraction: draw from a random sub-sample of every domain that holds this share of it (at least one sequence).
        max_epochs: a domain that was seen this often has weight 0 from then on; the others take its share.

    Raises MixtureError for empty domains, a batch size below 1 or a fraction outside (0, 1].
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
            raise MixtureError(f"batch_size {batch_size} must be at least 1 and fraction {fraction} in (0, 1]")
        self.names = list(sizes)
        self._seed, self._batch_size, self._fraction = seed, batch_size, fraction
        self._full_sizes = np.array(list(sizes.values()), dtype=np.uint64)  # (K,)
        # (K,) each: sequences drawn from, and draws allowed in all
        self.sizes, self._limits = domain_limits(self._full_sizes, fraction, max_epochs)
        self._order_keys = np.array([_key(seed, name, "order") for name in self.names], dtype=np.uint64)  # (K,)
        self._subset_keys = np.array([_key(seed, name, "subset") for name in self.names], dtype=np.uint64)  # (K,)
        self._turn_keys = np.array([_key(seed, name, "turn") for name in self.names], dtype=np.uint64)  # (K,)
        phases = np.array([_key(seed, name, "phase") for name in self.names], dtype=np.uint64)
        self._phases = phases.astype(float) / 2.0**64  # (K,) in [0, 1]
        self._start_key = _key(seed, "", "start")
        self._slot_key = _key(seed, "", "slots")
        self._step = 0
        self._drawn = np.zeros(len(self.names), dtype=np.int64)  # (K,)
        self._credit: NDArray[np.float64] = np.zeros(len(self.names))  # (K,) sequences

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
        """Domains that have reached `max_epochs`."""
        return [name for name, stopped in zip(self.names, self._drawn >= self._limits, strict=True) if stopped]

    def next_batch(self, weights: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw one batch under `weights` (K,), in the order of `sizes`.

        Returns:
            domains (batch_size,): which domain fills each slot, as its position in `sizes`.
            indices (batch_size,): which sequence of that domain.

        Raises MixtureError for weights that are no distribution over the domains, or if every domain with a weight has
        reached `max_epochs`.
        """
        turns = _mix(self._turn_keys, self._step).argsort()  # (K,) positions in `sizes`, shuffled by name
        counts = self._counts(np.asarray(weights, dtype=float), turns)
        in_turn = counts[turns]
        drawn = turns.repeat(in_turn)  # domain of each draw, (batch_size,)
        numbers = np.arange(self._batch_size)
        ordinals = numbers - (in_turn.cumsum() - in_turn).repeat(in_turn) + self._drawn[drawn]
        slots = permute(numbers, self._batch_size, _mix(self._slot_key, self._step))
        domains, indices = np.empty((2, self._batch_size), dtype=np.int64)
        domains[slots] = drawn
        indices[slots] = self._locate(drawn, ordinals)
        self._drawn += counts
        self._step += 1
        return domains, indices

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-ready state; its size depends on the number of domains alone."""
        return {
            "seed": self._seed,
            "batch_size": self._batch_size,
            "fraction": self._fraction,
            "step": self._step,
            "drawn": dict(zip(self.names, self._drawn.tolist(), strict=True)),
            "credit": dict(zip(self.names, self._credit.tolist(), strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state; domains are matched by name, and a new domain starts at its beginning.

        Raises MixtureError if the state has another seed, batch size or fraction, or a domain that `sizes` lacks.
        """
        for field, ours in (("seed", self._seed), ("batch_size", self._batch_size), ("fraction", self._fraction)):
            if state[field] != ours:
                raise MixtureError(f"sampler state has {field} {state[field]}, this run {ours}; start a new run")
        if gone := sorted(set(state["drawn"]) - set(self.names)):
            raise MixtureError(f"sampler state has domains {gone} that this run lacks; start a new run")
        self._step = int(state["step"])
        self._drawn = np.array([state["drawn"].get(name, 0) for name in self.names], dtype=np.int64)
        self._credit = np.array([state["credit"].get(name, 0.0) for name in self.names])

    def _check(self, weights: NDArray[np.float64]) -> None:
        sums_to_one = abs(weights.sum() - 1) <= WEIGHT_SUM_TOLERANCE  # False for NaN
        if weights.shape != self._drawn.shape or not weights.min() >= 0 or not sums_to_one:
            raise MixtureError(
                f"weights {weights.tolist()} must be {len(self.names)} finite, non-negative numbers that sum to 1"
            )

    def _counts(self, weights: NDArray[np.float64], turns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return sequences per domain (K,) that sum to the batch size, and carry fractions over as credit.

        A domain is due its credit plus its share of the batch. One that is due less than nothing, because it was
        rounded up lately, waits, and the dues of the others are lowered by one amount until all sum to the batch size.
        Who is rounded up is a systematic sample (Madow, 1949, "On the theory of systematic sampling, II"): chances are
        laid end to end in the order of `turns`, and the domains at u, u + 1, u + 2, … win, u from seed and step.

        All sums run in the order of `turns`, so that not even their rounding errors depend on the order of `sizes`.
        """
        self._check(weights)
        room = np.minimum(self._limits - self._drawn, self._batch_size)[turns] * (weights[turns] > 0)
        shares = weights[turns] * (room > 0)  # those of exhausted domains go to the others
        if not shares.any():
            raise MixtureError(
                f"max_epochs has stopped every domain that has a weight: {self.exhausted}; raise it or lower the token "
                "budget"
            )
        if room.sum() < self._batch_size:
            raise MixtureError(
                f"max_epochs leaves too few sequences for a batch of {self._batch_size}; raise it or lower the token "
                "budget"
            )
        fresh = self._batch_size * shares / shares.sum()
        credit = self._credit[turns] if self._step else _initial_credit(self._phases[turns], fresh)
        due = (credit + fresh) * (room > 0)
        whole, fractions = _split(_lowered(due, room, self._batch_size))
        # Sharper chances than the fractions keep domains closer to their share; equal fractions stay equal chances.
        chances = _lowered(SHARPNESS * fractions, fractions > 0, self._batch_size - whole.sum())
        counts, chances = _split(whole + chances)
        if missing := self._batch_size - int(counts.sum()):
            ends = chances.cumsum()
            start = (float(_mix(self._start_key, self._step) >> np.uint64(12)) + 0.5) / 2.0**52
            points = np.minimum((np.arange(missing) + start) * (ends[-1] / missing), np.nextafter(ends[-1], 0.0))
            counts[ends.searchsorted(points, side="right")] += 1
        self._credit[turns] = due - counts
        result = np.empty_like(counts)
        result[turns] = counts
        return result

    def _locate(self, domains: NDArray[np.int64], ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sequence at the n-th draw from a domain; all arrays are (batch_size,)."""
        epochs, positions = np.divmod(ordinals, self.sizes[domains])
        indices = permute(positions, self.sizes[domains], _mix(self._order_keys[domains], epochs))
        if self._fraction < 1:
            indices = permute(indices, self._full_sizes[domains], self._subset_keys[domains])
        return indices


def _initial_credit(phases: NDArray[np.float64], fresh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the credits (K,) before the first batch, spread as they are in later ones.

    With none, domains of similar weight would become due at the same time, batch after batch of them alone. A domain
    of many sequences per batch needs no credit; one of few is rounded up once its credit is about half a sequence, the
    later the larger its share, for it gains more per batch in which it is passed over. (The root is a fit to runs.)

    Args:
        phases: (K,) uniform in [0, 1].
        fresh: (K,) sequences per batch that the weights give.
    """
    few = np.minimum(fresh, 1.0)
    return (phases - 0.5 + 0.5 * np.sqrt(few)) * (1 - few)


def _split(expected: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return whole numbers and fractions (K,) of expected counts; what is almost whole has no fraction."""
    whole = np.floor(expected + WHOLE).astype(np.int64)
    return whole, np.clip(expected - whole, 0.0, None)


def _lowered(due: NDArray[np.float64], room: NDArray[Any], total: int) -> NDArray[np.float64]:
    """Return `due` (K,) less the one amount at which what is left, clipped to 0 and `room` (K,), sums to `total`.

    `room` must sum to at least `total`. The amount is negative where the dues sum to less than `total`.
    """
    if total == 0:
        return np.zeros_like(due)
    # As the amount falls, the sum grows at a constant slope between two breakpoints: a domain enters at its due, and
    # leaves when its room is full.
    breakpoints = np.concatenate([due, due - room])
    order = (-breakpoints).argsort(kind="stable")
    falling = breakpoints[order]
    slopes = np.concatenate([np.ones(len(due)), -np.ones(len(due))])[order].cumsum()
    sums = np.concatenate([[0.0], (slopes[:-1] * -np.diff(falling)).cumsum()])
    reached = min(int(sums.searchsorted(total)), len(sums) - 1)
    amount = falling[reached] + (sums[reached] - total) / max(slopes[reached - 1], 1.0)
    return np.clip(due - amount, 0.0, room)


def permute(positions: ArrayLike, sizes: ArrayLike, keys: ArrayLike) -> NDArray[np.int64]:
    """Evaluate a keyed pseudo-random bijection of range(size) at `positions`; all arguments broadcast to (n,).

    A Feistel network over the next power of four, applied until the value falls into the range again (cycle walking:
    Black and Rogaway, 2002, "Ciphers with arbitrary finite domains"): at most four times on average, nothing stored.
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
    """Hash each (key, number) to a 64-bit word by SplitMix64's finaliser."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is intended
        word = np.asarray(key, np.uint64) + (np.asarray(number).astype(np.uint64) + np.uint64(1)) * GOLDEN_RATIO
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))


def _key(seed: int, name: str, purpose: str) -> np.uint64:
    digest = blake2b(f"{seed}\0{name}\0{purpose}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
