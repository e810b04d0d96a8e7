"""Texts → tokens on all cores, in order: the tokenizer's own threads on a few batches at a time.

Rust does more than nine tenths of the work and lets go of Python's lock, so one batch's threads run while Python hashes
the documents of the next and copies the tokens of the one before.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np

from velocitune_core.data.packing.rows import Tokens

Tokenizer = Any  # a transformers fast tokenizer
Label = TypeVar("Label")

_BATCHES_IN_FLIGHT = 3


class PackingError(ValueError):
    """A domain or tokenizer that no sequences can be made with; says what was counted and what to change."""


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """SHA-256 of a fast tokenizer: its JSON serialisation with sorted keys, and its end-of-text token.

    Truncation and padding are left out: calls set them in passing, and packing uses neither.
    """
    tree = json.loads(_backend(tokenizer).to_str())
    tree.pop("truncation", None)
    tree.pop("padding", None)
    canonical = json.dumps({"tokenizer": tree, "end_of_text": tokenizer.eos_token}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


class ParallelTokenizer(Generic[Label]):
    """Tokenises batches in the background and gives them back in the order in which they came."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype[Any]) -> None:
        import tokenizers

        self._dtype, self._end_of_text = dtype, tokenizer.eos_token_id
        self._encoder = tokenizers.Tokenizer.from_str(_backend(tokenizer).to_str())  # the caller's stays as it is
        self._encoder.no_truncation()
        self._encoder.no_padding()
        self._encoder.encode_special_tokens = True  # a text that spells end-of-text must not end the document
        self._waiting: deque[tuple[Label, Future[list[Tokens]]]] = deque()
        self._pool = ThreadPoolExecutor(_BATCHES_IN_FLIGHT, thread_name_prefix="tokenise")

    def submit(self, label: Label, texts: Sequence[str]) -> Iterator[tuple[Label, list[Tokens]]]:
        """Begin with a batch; yields earlier ones, each text's tokens and an end-of-text token, to make room for it."""
        while len(self._waiting) >= _BATCHES_IN_FLIGHT:
            yield self._next()
        self._waiting.append((label, self._pool.submit(self._encode, texts)))

    def drain(self) -> Iterator[tuple[Label, list[Tokens]]]:
        """All that is still in work."""
        while self._waiting:
            yield self._next()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _next(self) -> tuple[Label, list[Tokens]]:
        label, future = self._waiting.popleft()
        return label, future.result()

    def _encode(self, texts: Sequence[str]) -> list[Tokens]:
        encoded = self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._with_end_of_text(each.ids) for each in encoded]

    def _with_end_of_text(self, ids: list[int]) -> Tokens:
        ids.append(self._end_of_text)
        return np.array(array("I", ids), dtype=self._dtype)  # an array of machine integers is read faster than a list


def _backend(tokenizer: Tokenizer) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise PackingError(f"{type(tokenizer).__name__} is no fast tokenizer; use one that has a tokenizer.json")
    return backend
