"""Group documents into the batches that the tokenizer's threads work on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from velocitune_core.data.tokenize import Piece

_BATCH_DOCUMENTS = 256
_BATCH_CHARACTERS = 1 << 20

Batch = list[tuple[bytes, Piece]]  # digest of the document that a piece is of, and the piece


def batched(documents: Iterable[tuple[bytes, Iterator[Piece]]]) -> Iterator[Batch]:
    """Group documents into batches: bounded in memory, and large enough to keep the tokenizer's threads busy.

    The first piece of a long document ends a batch; each of its other pieces is a batch of its own.

    Args:
        documents: digest and pieces of each; pieces are taken as they are yielded.
    """
    batch: Batch = []
    characters = 0
    for digest, pieces in documents:
        batch.append((digest, next(pieces)))
        characters += len(batch[-1][1].text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS or not batch[-1][1].last:
            yield batch
            batch, characters = [], 0
            yield from ([(digest, piece)] for piece in pieces)
    if batch:
        yield batch
