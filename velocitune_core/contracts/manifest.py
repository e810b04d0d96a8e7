"""The packed data: what the stage `prepare` writes, and what a training job is given of it."""

from __future__ import annotations

from pydantic import Field

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
    left_out: int = 0  # files of its folder, or splits of its data set, that were not read
    left_out_shown: list[str] = Field(default=[])  # the first ten, as "what: why"
    unwatched_sha256: str | None = None  # of paths, sizes and times of files that DVC does not watch, if there are any
    read_to_end: bool = True  # False: a data set on the hub, left once both splits were full
    revision: str | None = None  # commit of a data set on the hub
    settings_sha256: str | None = None  # of the settings and files that it was packed from


class Border(Part):
    """Tokens that are packed before, or after, every document."""

    ids: list[int] = Field(default=[])
    tokens: list[str] = Field(default=[])


class DocumentBorders(Part):
    """The tokens at the borders of documents in a packed row, and whether attention stays inside them."""

    start: Border = Border()
    end: Border = Border()
    mask: bool = False

    @property
    def first_id(self) -> int | None:
        """The id at which positions start again if attention stays inside documents; None without any border.

        It is the token that documents begin with. Without one it is the token that separates them: as a target it is
        the end of one document, as an input the start of the next.
        """
        return next(iter([*self.start.ids[:1], *self.end.ids[-1:]]), None)

    @property
    def attention_start(self) -> int | None:
        """`first_id` if attention stays inside documents, else None."""
        return self.first_id if self.mask else None

    def described(self) -> str:
        """Return a line of text, such as: start <s>, end </s>, attention inside each document."""
        around = {"start": self.start, "end": self.end}
        parts = [f"{name} {' '.join(each.tokens) or 'none'}" for name, each in around.items()]
        return ", ".join([*parts, "attention inside each document" if self.mask else "attention across documents"])


class Manifest(Contract):
    """prepared/manifest.json"""

    sequence_length: int
    vocabulary_size: int
    tokenizer_sha256: str
    documents: DocumentBorders = DocumentBorders()
    domains: dict[str, DomainManifest]
    measured: dict[str, DomainManifest] = Field(default={})  # sets without training text

    def not_read(self) -> list[str]:
        """Return a sentence for every domain whose source holds files that were not read."""
        return [
            f"{name}: {domain.left_out} in its source not read: {'; '.join(domain.left_out_shown)}"
            for name, domain in (self.domains | self.measured).items()
            if domain.left_out
        ]


class DomainFiles(Part):
    """Paths of one domain's packed files, shape (sequences, sequence_length) each, and their manifest hashes."""

    train: str
    held_out: str
    train_sha256: str
    held_out_sha256: str
