"""From documents to fixed-length token sequences: exact deduplication, split by hash, tokenisation, packing.

Each split is written as a plain .npy matrix: numpy memory-maps it, the page cache shares it between processes, it needs
no index, and any row is one slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from velocitune_core.config import Data
from velocitune_core.contracts import DomainManifest, Split
from velocitune_core.data.borders import document_borders, largest_id, special_ids
from velocitune_core.data.cutting import CONTEXT, UncuttableError
from velocitune_core.data.packing.batches import Batch, batched
from velocitune_core.data.packing.progress import Progress, Watcher
from velocitune_core.data.packing.resume_state import PackingState
from velocitune_core.data.packing.rows import Reservoir, RowStream, RowWriter, Tokens
from velocitune_core.data.sources import Document
from velocitune_core.data.splits import identified, is_held_out
from velocitune_core.data.texts import is_long, text_parts, whole_text
from velocitune_core.data.tokenize import PackingError, ParallelTokenizer, Piece, Tokenizer
from velocitune_core.files import discard, file_sha256, replacing

SHARD_TOKENS = 10_000_000  # between two saved states: at most this much work is repeated after a kill
ALL_HELD_OUT = 1.0  # data.held_out_fraction of a set without training text


def pack_domain(
    name: str,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    data: Data,
    max_tokens: int | None,
    folder: Path,
    *,
    key: str | None = None,
    shard_tokens: int = SHARD_TOKENS,
    stop_when_full: bool = False,
    watch: Watcher = lambda progress: None,
) -> DomainManifest:
    """Write `<folder>/train.npy` and `<folder>/held_out.npy`, and return their description.

    Each file is a (sequences, data.sequence_length) matrix of token ids, uint16 if the vocabulary fits, else uint32.
    Its rows are the concatenated tokens of the split's documents, each between the tokens of `document_borders`; the
    last tokens, if fewer than a row, are dropped. Special tokens spelled out in a text are tokenised as text.

    `max_tokens` limits the training split, rounded down to whole rows, to the *first* documents: shuffle a sorted
    corpus before. The held-out rows are a uniform sample, seeded by the domain's name, of at most
    data.held_out_sequences rows of all held-out documents. The whole source is therefore read even if `max_tokens` is
    small; training documents beyond it are hashed but not tokenised. With `stop_when_full` reading stops once both
    splits have all their rows, and the held-out rows are a sample of the documents read so far: a document is held out
    by the hash of its text, so its split is the same either way.

    The state is saved every `shard_tokens` tokens to `.<name of folder>.partial`, beside the folder. A call with the
    `key` of an interrupted one resumes from its last state and writes the same files; with None it starts over.

    Memory is independent of the size of the domain and of its documents: a few batches, of documents or of pieces of a
    long one (see `cutting`), the held-out sample and a cache of digests.
    Both files appear together or, on an exception, not at all. `documents` of a Split counts those that its rows were
    taken from (held out: sampled from). Raises PackingError for document borders that the tokenizer does not have, and
    for a domain that is empty or too small for one sequence of each split.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    packer = _Packer(name, tokenizer, data, max_tokens, shard_tokens, stop_when_full)
    packer.open(partial, key)
    try:
        packer.run(documents, watch)
        if problem := packer.problem():
            raise PackingError(problem)
        manifest = packer.finish(folder.name)
    except PackingError:
        discard(partial)  # resuming would fail in the same way
        raise
    finally:
        packer.close()
    _put_in_place(partial, folder)
    return manifest


def _put_in_place(partial: Path, folder: Path) -> None:
    """Move both files of finished work into a folder, in place of the one that is there, and delete the rest."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        for file in ("train.npy", "held_out.npy"):
            (partial / file).rename(temporary / file)
    discard(partial)


class _Packer:
    """Streams, files and counts of one domain that is being packed."""

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        data: Data,
        max_tokens: int | None,
        shard_tokens: int,
        stop_when_full: bool,
    ) -> None:
        borders = document_borders(tokenizer, data)
        start, end = borders.start.ids, borders.end.ids
        self.name = name
        self.data = data
        self.max_sequences = None if max_tokens is None else max_tokens // data.sequence_length
        if self.max_sequences == 0:
            raise PackingError(
                f"domain {name!r}: max_tokens {max_tokens} is under one sequence of {data.sequence_length}; raise it"
            )
        self.dtype = np.dtype(np.uint16 if largest_id(tokenizer) < 2**16 else np.uint32)
        self.counts = dict.fromkeys(("read", "duplicates", "too_short", "train", "held_out"), 0)  # documents
        self.held_out = Reservoir(data.held_out_sequences, name)
        self._tokenizer: ParallelTokenizer[Batch] = ParallelTokenizer(
            tokenizer, self.dtype, start, end, never=special_ids(tokenizer).intersection([*start, *end])
        )
        self._train_stream = RowStream(data.sequence_length, self.dtype)
        self._held_out_stream = RowStream(data.sequence_length, self.dtype)
        self._shard_tokens, self._stop_when_full = shard_tokens, stop_when_full
        self._read_to_end = True
        self._unsaved_tokens = 0
        self._tokenised = 0

    def open(self, folder: Path, key: str | None) -> None:
        """Open the folder for work in progress, and resume from the last state in it if that has the same key."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, train = folder, folder / "train.npy"
        self._state = PackingState(folder / "state.sqlite", key)
        values, arrays = self._state.load() or ({}, {})
        sequences = values.get("sequences", 0)
        row_bytes = self.data.sequence_length * self.dtype.itemsize
        if sequences and not (train.is_file() and train.stat().st_size > sequences * row_bytes):  # rows were lost
            self._state.clear()
            values, sequences = {}, 0
        if values:
            self.counts = values["documents"]
            self._train_stream.rest = arrays.pop("train_rest")
            self._held_out_stream.rest = arrays.pop("held_out_rest")
            self.held_out.restore(values["offered"], values["random"], arrays)
        self._resumed_at = self.counts["read"] or None
        self.writer = RowWriter(train, self.data.sequence_length, self.dtype, sequences)

    def run(self, documents: Iterable[Document], watch: Watcher) -> None:
        """Pack the documents after those that the state already counts."""
        self._report(watch)
        kept = self._kept(islice(documents, self.counts["read"], None))
        for batch in batched((digest, self._pieces(digest, document)) for digest, document in kept):
            wanted = [each for each in batch if self._is_wanted(each[0])]
            if wanted:
                self._take(self._tokenizer.submit(wanted, [piece for _, piece in wanted]))
            if self._unsaved_tokens >= self._shard_tokens and batch[-1][1].last:  # not inside of a document
                self._take(self._tokenizer.drain())
                self._save()
            self._report(watch)
            if self._stop_when_full and self._full() and self.held_out.offered >= self.data.held_out_sequences:
                self._read_to_end = False
                break
        self._take(self._tokenizer.drain())
        self._report(watch)

    def problem(self) -> str | None:
        """Describe why the domain is too small, or return None if it is not."""
        counts = self.counts
        if not counts["read"]:
            return f"domain {self.name!r} is empty: its source has no documents"
        if (self.writer.sequences or self.data.held_out_fraction == ALL_HELD_OUT) and self.held_out.offered:
            return None
        return (
            f"domain {self.name!r} is too small for one training and one held-out sequence of "
            f"{self.data.sequence_length} tokens. Documents read: {counts['read']} (duplicates: "
            f"{counts['duplicates']}, under {self.data.min_characters} characters: {counts['too_short']}); for "
            f"training: {counts['train']}, of {self.writer.sequences} sequences and {len(self._train_stream.rest)} "
            f"tokens more; held out: {counts['held_out']}, of {self.held_out.offered} sequences and "
            f"{len(self._held_out_stream.rest)} tokens more. Give it more text, or change data.held_out_fraction "
            f"({self.data.held_out_fraction}) or data.sequence_length"
        )

    def finish(self, folder_name: str) -> DomainManifest:
        """Complete both files and return their description."""
        self.writer.finish()
        held_out = RowWriter(self._folder / "held_out.npy", self.data.sequence_length, self.dtype)
        held_out.append(self.held_out.rows())
        held_out.finish()
        held_out.close()
        splits = {
            split: Split(
                file=f"{folder_name}/{split}.npy",
                documents=self.counts[split],
                sequences=writer.sequences,
                tokens=writer.sequences * self.data.sequence_length,
                sha256=file_sha256(self._folder / f"{split}.npy"),
            )
            for split, writer in (("train", self.writer), ("held_out", held_out))
        }
        return DomainManifest(
            train=splits["train"],
            held_out=splits["held_out"],
            documents_read=self.counts["read"],
            duplicates=self.counts["duplicates"],
            too_short=self.counts["too_short"],
            read_to_end=self._read_to_end,
        )

    def close(self) -> None:
        self._tokenizer.close()
        self.writer.close()
        self._state.close()

    def _kept(self, documents: Iterable[Document]) -> Iterator[tuple[bytes, Document]]:
        """Yield digest and document of those that are long enough and new, and count the others."""
        for document in documents:
            self.counts["read"] += 1
            digest, characters = identified(document.content)
            if characters < self.data.min_characters:
                self.counts["too_short"] += 1
            elif not self._state.add(digest):
                self.counts["duplicates"] += 1
            else:
                yield digest, document

    def _pieces(self, digest: bytes, document: Document) -> Iterator[Piece]:
        if not is_long(document.content):
            yield Piece(whole_text(document.content))
            return
        try:
            held: str | None = None
            before = ""
            for text in self._tokenizer.cutter.pieces(text_parts(document.content)):
                if held is not None:
                    yield Piece(held, before, last=False)
                    before = held[-CONTEXT:]
                held = text
                if not self._is_wanted(digest):
                    break
            yield Piece(held or "", before)
        except UncuttableError as error:
            raise PackingError(f"domain {self.name!r}: {document.origin}: {error}") from None

    def _take(self, tokenised: Iterable[tuple[Batch, list[Tokens]]]) -> None:
        """Append the tokens of each piece to its split."""
        for batch, results in tokenised:
            for (digest, piece), tokens in zip(batch, results, strict=True):
                self._tokenised += piece.first
                self._unsaved_tokens += len(tokens)
                if self._is_held_out(digest):
                    self.counts["held_out"] += piece.first
                    self.held_out.offer(self._held_out_stream.add(tokens))
                elif not self._full():
                    self.counts["train"] += piece.first
                    rows = self._train_stream.add(tokens)
                    left = None if self.max_sequences is None else self.max_sequences - self.writer.sequences
                    self.writer.append(rows[:left])

    def _save(self) -> None:
        """Save a finished shard: flush its rows to the disk first, then commit the state that counts them."""
        self.writer.sync()
        values = {
            "documents": self.counts,
            "sequences": self.writer.sequences,
            "offered": self.held_out.offered,
            "random": self.held_out.random_state(),
        }
        rests = {"train_rest": self._train_stream.rest, "held_out_rest": self._held_out_stream.rest}
        self._state.save(values, {**rests, **self.held_out.arrays()})
        self._unsaved_tokens = 0

    def _is_wanted(self, digest: bytes) -> bool:
        return not self._full() or self._is_held_out(digest)

    def _is_held_out(self, digest: bytes) -> bool:
        return is_held_out(digest, self.data.held_out_fraction)

    def _full(self) -> bool:
        return self.max_sequences is not None and self.writer.sequences >= self.max_sequences

    def _report(self, watch: Watcher) -> None:
        tokens = self.writer.sequences * self.data.sequence_length
        watch(Progress(self.counts["read"], tokens, self._resumed_at, self._tokenised))
