"""Tokenisation of batches of texts on all cores, in order.

The Rust tokenizer does over nine tenths of the work and releases Python's global lock, so while one batch is tokenised,
Python hashes the documents of the next and copies the tokens of the previous one.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from velocitune_core.data.cutting import Cutter
from velocitune_core.data.packing.rows import Tokens

Tokenizer = Any  # a transformers fast tokenizer
Key = TypeVar("Key")

_BATCHES_IN_FLIGHT = 3


@dataclass(frozen=True, slots=True)
class Piece:
    """A text, or a piece of a long one."""

    text: str
    before: str = ""  # the end of the piece before it
    last: bool = True

    @property
    def first(self) -> bool:
        """Whether it is a whole text, or begins one."""
        return not self.before


class PackingError(ValueError):
    """A domain or tokenizer that cannot be packed; the message gives the counts and what to change."""


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of a fast tokenizer: its JSON serialisation with sorted keys, and its end-of-text token.

    Truncation and padding are left out: calls of the tokenizer change them, and packing uses neither. Raises
    PackingError for a slow tokenizer.
    """
    tree = json.loads(_backend(tokenizer).to_str())
    tree.pop("truncation", None)
    tree.pop("padding", None)
    canonical = json.dumps({"tokenizer": tree, "end_of_text": tokenizer.eos_token}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


class ParallelTokenizer(Generic[Key]):
    """Tokenise batches in background threads and return them in the order of submission.

    A batch holds first pieces only, or none. `cutter` makes pieces of a long text.

    Special tokens spelled out in a text are tokenised as text; the ids of `never` are left out of it whatever the
    tokenizer makes of it (a Unigram model finds them in its vocabulary, special or not). Raises PackingError for a slow
    tokenizer.

    Args:
        start, end: ids to put before and after the tokens of each text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dtype: np.dtype[Any],
        start: Sequence[int] = (),
        end: Sequence[int] = (),
        never: Collection[int] = (),
    ) -> None:
        import tokenizers

        self._dtype, self._start, self._end, self._never = dtype, list(start), list(end), frozenset(never)
        self._encoder = tokenizers.Tokenizer.from_str(_backend(tokenizer).to_str())  # a copy, changed below
        self._encoder.no_truncation()
        self._encoder.no_padding()
        self._encoder.encode_special_tokens = True  # a text that spells end-of-text must not end the document
        self.cutter = Cutter(self._encoder)
        self._waiting: deque[tuple[Key, Future[list[Tokens]]]] = deque()
        self._pool = ThreadPoolExecutor(_BATCHES_IN_FLIGHT, thread_name_prefix="tokenise")

    def submit(self, key: Key, pieces: Sequence[Piece]) -> Iterator[tuple[Key, list[Tokens]]]:
        """Queue a batch, after yielding the earliest results until the queue has room for it.

        A generator: the batch is queued when the iterator is exhausted.
        """
        while len(self._waiting) >= _BATCHES_IN_FLIGHT:
            yield self._next()
        self._waiting.append((key, self._pool.submit(self._encode, pieces)))

    def drain(self) -> Iterator[tuple[Key, list[Tokens]]]:
        """Yield the results of all queued batches."""
        while self._waiting:
            yield self._next()

    def close(self) -> None:
        """Stop the threads; queued batches are discarded."""
        self._pool.shutdown(cancel_futures=True)

    def _next(self) -> tuple[Key, list[Tokens]]:
        key, future = self._waiting.popleft()
        return key, future.result()

    def _encode(self, pieces: Sequence[Piece]) -> list[Tokens]:
        if not all(piece.first for piece in pieces):
            return [self._bordered(self.cutter.ids(piece.text, piece.before), piece) for piece in pieces]
        encoded = self._encoder.encode_batch_fast([piece.text for piece in pieces], add_special_tokens=False)
        return [self._bordered(each.ids, piece) for each, piece in zip(encoded, pieces, strict=True)]

    def _bordered(self, ids: list[int], piece: Piece) -> Tokens:
        if not self._never.isdisjoint(ids):
            ids = [each for each in ids if each not in self._never]
        tokens = [*(self._start if piece.first else ()), *ids, *(self._end if piece.last else ())]
        return np.array(array("I", tokens), dtype=self._dtype)  # numpy copies an array of machine integers faster


def _backend(tokenizer: Tokenizer) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise PackingError(f"{type(tokenizer).__name__} is not a fast tokenizer; use one that has a tokenizer.json")
    return backend
