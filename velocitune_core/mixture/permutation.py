"""Keyed pseudo-random words and permutations: computed where they are needed, nothing stored."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike, NDArray

GOLDEN_RATIO = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads consecutive integers over all 64-bit keys
ROUNDS = [np.uint64(number * GOLDEN_RATIO % 2**64) for number in range(1, 5)]  # of the Feistel network
SHIFTS = [np.uint64(bits) for bits in (30, 27, 31)]
FACTORS = [np.uint64(factor) for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]
ONE = np.uint64(1)


def key(seed: int, name: str, purpose: str) -> np.uint64:
    """Return a 64-bit key that a name, a purpose and a seed decide."""
    digest = blake2b(f"{seed}\0{name}\0{purpose}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def words(keys: NDArray[np.uint64] | np.uint64, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash each (key, number) to a 64-bit word by SplitMix64's finaliser; one argument at least has a dimension."""
    return _scrambled((numbers.astype(np.uint64) + ONE) * np.uint64(GOLDEN_RATIO) + keys)


def permute(positions: ArrayLike, sizes: ArrayLike, keys: ArrayLike) -> NDArray[np.int64]:
    """Evaluate a keyed pseudo-random bijection of range(size) at `positions`; all arguments broadcast to (n,).

    A Feistel network over the next power of four, applied until the value falls into the range again (cycle walking:
    Black and Rogaway, 2002, "Ciphers with arbitrary finite domains"): at most four times on average, nothing stored.
    """
    positions, sizes, keys = np.broadcast_arrays(
        np.asarray(positions, np.uint64), np.asarray(sizes, np.uint64), np.asarray(keys, np.uint64)
    )
    bits = np.frexp((sizes - ONE).astype(float))[1]  # bit length, exact below 2^53
    half = np.maximum(1, (bits + 1) // 2).astype(np.uint64)
    image = _feistel(positions, half, keys)
    walking = (image >= sizes).nonzero()[0]
    while walking.size:
        image[walking] = again = _feistel(image[walking], half[walking], keys[walking])
        walking = walking[again >= sizes[walking]]
    return image.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = (ONE << half) - ONE
    left, right = values >> half, values & mask
    for number in ROUNDS:
        left, right = right, left ^ (_scrambled((keys ^ right) + number) & mask)
    return (left << half) | right


def _scrambled(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Overwrite each word, modulo 2^64, by SplitMix64's finaliser, and return them."""
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        word ^= word >> shift
        word *= factor
    word ^= word >> SHIFTS[-1]
    return word
