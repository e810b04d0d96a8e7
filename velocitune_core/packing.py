"""From documents to fixed-length token sequences: exact dedup, split by hash, tokenise, pack, one .npy per split.

A plain .npy matrix is memory-mapped by numpy itself, shared between processes by the page cache, and costs nothing but
its tokens: no index, no metadata to load, and any row is one slice away.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from velocitune_core.atomic import replacing
from velocitune_core.config import Data
from velocitune_core.contracts import DomainManifest, Split
from velocitune_core.sources import Document

Tokenizer = Any  # a transformers fast tokenizer
Tokens = np.ndarray[tuple[int], np.dtype[np.unsignedinteger[Any]]]  # (tokens,)
Rows = np.ndarray[tuple[int, int], np.dtype[np.unsignedinteger[Any]]]  # (sequences, sequence_length)

_BATCH_DOCUMENTS = 256
_BATCH_CHARACTERS = 1 << 20


class PackingError(ValueError):
    """A domain or tokenizer that no sequences can be made with; says what was counted and what to change."""


def document_digest(text: str) -> bytes:
    """16 bytes that equal texts share: NFC-normalised, every run of whitespace taken as one blank."""
    normalised = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.blake2b(normalised.encode(), digest_size=16).digest()


def is_held_out(digest: bytes, fraction: float) -> bool:
    """Whether a document is held out: a function of its text alone.

    Adding documents moves none across, the same text goes to the same side in every domain, and what a fraction holds
    out a larger one holds out too.
    """
    return int.from_bytes(digest[:8]) < fraction * 2.0**64


def pack_domain(
    name: str, documents: Iterable[Document], tokenizer: Tokenizer, data: Data, max_tokens: int | None, folder: Path
) -> DomainManifest:
    """Write `<folder>/train.npy` and `<folder>/held_out.npy` and describe them.

    Each file is a (sequences, data.sequence_length) matrix of token ids, uint16 where the vocabulary fits, else uint32.
    Its rows are the tokens of the split's documents one after the other, each document followed by end-of-text. Tokens
    that fill no whole row at the end are dropped. Text that spells a special token is tokenised as text.

    `max_tokens` caps the training split, floored to whole rows, and takes the *first* documents: shuffle a sorted
    corpus before. The held-out rows are an even draw, seeded by the domain's name, of at most data.held_out_sequences
    out of all held-out documents, so the whole source is read even where `max_tokens` takes little of it; what is only
    read costs a hash, no tokenising.

    Memory: a batch of documents, the held-out draw, and a digest (about 100 bytes) per distinct document. Both files
    appear together or, on an exception, not at all. In a Split, `documents` are those its rows were taken from (for
    held_out: drawn from). Raises PackingError for a tokenizer without end-of-text token and for a domain that is empty
    or too small for one sequence of each split.
    """
    packer = _Packer(name, tokenizer, data, max_tokens)
    with replacing(folder) as temporary:
        temporary.mkdir()
        with (temporary / "train.npy").open("wb") as file:
            writer = _RowWriter(file, data.sequence_length, packer.dtype)
            packer.run(documents, writer)
            writer.finish()
        if problem := packer.problem(writer.sequences):
            raise PackingError(problem)
        with (temporary / "held_out.npy").open("wb") as file:
            held_out = _RowWriter(file, data.sequence_length, packer.dtype)
            held_out.append(packer.held_out.rows())
            held_out.finish()
        return DomainManifest(
            train=_describe(temporary / "train.npy", folder, packer.train_documents, writer),
            held_out=_describe(temporary / "held_out.npy", folder, packer.held_out_documents, held_out),
            documents_read=packer.kept.read,
            duplicates=packer.kept.duplicates,
            too_short=packer.kept.too_short,
        )


def load_split(path: Path) -> Rows:
    """A packed split, memory-mapped and read-only: (sequences, sequence_length)."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """SHA-256 of a fast tokenizer: its JSON serialisation with sorted keys, and its end-of-text token.

    Truncation and padding are left out: calls set them in passing, and packing uses neither.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise PackingError(f"{type(tokenizer).__name__} is no fast tokenizer; use one that has a tokenizer.json")
    tree = json.loads(backend.to_str())
    tree.pop("truncation", None)
    tree.pop("padding", None)
    canonical = json.dumps({"tokenizer": tree, "end_of_text": tokenizer.eos_token}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


class _Packer:
    """The state of packing one domain."""

    def __init__(self, name: str, tokenizer: Tokenizer, data: Data, max_tokens: int | None) -> None:
        if tokenizer.eos_token_id is None:
            raise PackingError("the tokenizer has no end-of-text token; set eos_token in its tokenizer_config.json")
        self.name = name
        self.tokenizer = tokenizer
        self.data = data
        self.max_sequences = None if max_tokens is None else max_tokens // data.sequence_length
        if self.max_sequences == 0:
            raise PackingError(
                f"domain {name!r}: max_tokens {max_tokens} is under one sequence of {data.sequence_length}; raise it"
            )
        self.dtype = np.dtype(np.uint16 if max(tokenizer.get_vocab().values()) < 2**16 else np.uint32)
        self.kept = _KeptDocuments(data.min_characters)
        self.train_documents = 0
        self.held_out_documents = 0
        self.held_out = _Reservoir(data.held_out_sequences, name)
        self._train_stream = _RowStream(data.sequence_length, self.dtype)
        self._held_out_stream = _RowStream(data.sequence_length, self.dtype)

    def run(self, documents: Iterable[Document], writer: _RowWriter) -> None:
        for batch in _batches(self.kept.of(documents)):
            wanted = [each for each in batch if not self._full(writer) or self._is_held_out(each[0])]
            if not wanted:
                continue
            for digest, tokens in zip((digest for digest, _ in wanted), self._tokenise(wanted), strict=True):
                if self._is_held_out(digest):
                    self.held_out_documents += 1
                    self.held_out.offer(self._held_out_stream.add(tokens))
                elif not self._full(writer):
                    self.train_documents += 1
                    rows = self._train_stream.add(tokens)
                    left = None if self.max_sequences is None else self.max_sequences - writer.sequences
                    writer.append(rows[:left])

    def problem(self, train_sequences: int) -> str | None:
        """Why there are too few sequences, if so."""
        kept = self.kept
        if not kept.read:
            return f"domain {self.name!r} is empty: its source has no documents"
        if train_sequences and self.held_out.offered:
            return None
        return (
            f"domain {self.name!r} is too small for one training and one held-out sequence of "
            f"{self.data.sequence_length} tokens: {kept.read} documents read, {kept.duplicates} duplicates, "
            f"{kept.too_short} under {self.data.min_characters} characters; training: {self.train_documents} "
            f"documents, {train_sequences} sequences and {self._train_stream.left_over} tokens; held out: "
            f"{self.held_out_documents} documents, {self.held_out.offered} sequences and "
            f"{self._held_out_stream.left_over} tokens. Give it more text, or change data.held_out_fraction "
            f"({self.data.held_out_fraction}) or data.sequence_length"
        )

    def _is_held_out(self, digest: bytes) -> bool:
        return is_held_out(digest, self.data.held_out_fraction)

    def _full(self, writer: _RowWriter) -> bool:
        return self.max_sequences is not None and writer.sequences >= self.max_sequences

    def _tokenise(self, batch: list[tuple[bytes, str]]) -> Iterator[Tokens]:
        """Each text's tokens and an end-of-text token."""
        encoded = self.tokenizer(
            [text for _, text in batch],
            add_special_tokens=False,
            split_special_tokens=True,  # a text that spells end-of-text must not end the document
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for ids in encoded["input_ids"]:
            yield np.array([*ids, self.tokenizer.eos_token_id], dtype=self.dtype)


class _KeptDocuments:
    """Counts documents and lets those pass that are long enough and new."""

    def __init__(self, min_characters: int) -> None:
        self.min_characters = min_characters
        self.read = self.duplicates = self.too_short = 0
        self._seen: set[bytes] = set()

    def of(self, documents: Iterable[Document]) -> Iterator[tuple[bytes, str]]:
        for document in documents:
            self.read += 1
            if len(document.text.strip()) < self.min_characters:
                self.too_short += 1
                continue
            digest = document_digest(document.text)
            if digest in self._seen:
                self.duplicates += 1
                continue
            self._seen.add(digest)
            yield digest, document.text


def _batches(documents: Iterator[tuple[bytes, str]]) -> Iterator[list[tuple[bytes, str]]]:
    """Batches small enough for memory, however long the documents, and large enough for the tokenizer's threads."""
    batch: list[tuple[bytes, str]] = []
    characters = 0
    for digest, text in documents:
        batch.append((digest, text))
        characters += len(text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _RowStream:
    """Cuts a stream of tokens into rows."""

    def __init__(self, length: int, dtype: np.dtype[Any]) -> None:
        self._rest = np.empty(0, dtype)
        self._length = length

    @property
    def left_over(self) -> int:
        return len(self._rest)

    def add(self, tokens: Tokens) -> Rows:
        """The rows that are full with these tokens; what is left waits for more."""
        joined = np.concatenate([self._rest, tokens])
        cut = len(joined) - len(joined) % self._length
        self._rest = joined[cut:].copy()
        return joined[:cut].reshape(-1, self._length)


class _Reservoir:
    """An even draw of rows out of a stream of unknown length (algorithm R), kept in the stream's order."""

    def __init__(self, size: int, name: str) -> None:
        self.offered = 0
        self._size = size
        self._kept: dict[int, tuple[int, np.ndarray]] = {}  # slot → position in the stream, row
        self._random = np.random.default_rng(int.from_bytes(hashlib.sha256(f"held-out {name}".encode()).digest()))

    def offer(self, rows: Rows) -> None:
        for row in rows:
            slot = self.offered if self.offered < self._size else int(self._random.integers(self.offered + 1))
            if slot < self._size:
                self._kept[slot] = (self.offered, row.copy())
            self.offered += 1

    def rows(self) -> Rows:
        return np.stack([row for _, row in sorted(self._kept.values(), key=lambda kept: kept[0])])


@dataclass
class _RowWriter:
    """Appends rows to a .npy file whose number of rows is known only at the end.

    numpy pads a header for 21 digits of the first axis for this purpose: the final header is as long as the first.
    """

    file: BinaryIO
    length: int
    dtype: np.dtype[Any]
    sequences: int = 0

    def __post_init__(self) -> None:
        self._write_header()
        self._header_bytes = self.file.tell()

    def append(self, rows: Rows) -> None:
        self.file.write(rows.tobytes())
        self.sequences += len(rows)

    def finish(self) -> None:
        self.file.seek(0)
        self._write_header()
        assert self.file.tell() == self._header_bytes

    def _write_header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.sequences, self.length)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _describe(path: Path, folder: Path, documents: int, writer: _RowWriter) -> Split:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Split(
        file=f"{folder.name}/{path.name}",
        documents=documents,
        sequences=writer.sequences,
        tokens=writer.sequences * writer.length,
        sha256=sha256,
    )
