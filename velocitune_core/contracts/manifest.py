"""The packed data: what the stage `prepare` writes, and what a training job is given of it."""

from __future__ import annotations

from velocitune_core.contracts.contract import Contract, Part


class Split(Part):
    """One packed file: an .npy matrix of token ids, shape (sequences, sequence_length)."""

    file: str  # relative to the manifest
    documents: int
    sequences: int
    tokens: int
    sha256: str


class DomainManifest(Part):
    """The packed files of one domain, and how many documents of its source were left out."""

    train: Split
    held_out: Split
    documents_read: int
    duplicates: int
    too_short: int
    malformed: int = 0  # rows of the source without a document in them


class Manifest(Contract):
    """prepared/manifest.json"""

    sequence_length: int
    vocabulary_size: int
    tokenizer_sha256: str
    domains: dict[str, DomainManifest]


class DomainFiles(Part):
    """Paths of one domain's packed files, shape (sequences, sequence_length) each, and their manifest hashes."""

    train: str
    held_out: str
    train_sha256: str
    held_out_sha256: str
