"""The documents file of a domain: one JSON object {"id", "text"} per line, as every recipe writes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from velocitune_core.files import replacing

Record = tuple[str, str]  # identifier within the archive or package, text
Documents = dict[bytes, Record]  # SHA-256 of the text → its first record


class CorpusError(ValueError):
    """An archive or package that is missing, corrupt, or without the documents that its domain is read from."""


def add_distinct(documents: Documents, records: Iterable[Record]) -> int:
    """Add the records with a new, non-empty text, stripped of surrounding whitespace; return how many were added."""
    before = len(documents)
    for identifier, raw in records:
        if text := raw.strip():
            documents.setdefault(hashlib.sha256(text.encode()).digest(), (identifier, text))
    return len(documents) - before


def write_documents(documents: Mapping[bytes, Record], path: Path) -> None:
    """Write one document per line, in order of the texts' SHA-256, so that any prefix is an unbiased sample.

    Held-out documents are chosen by another hash (`data.splits`), so the order is independent of the split.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for _, (identifier, text) in sorted(documents.items()):
            file.write(json.dumps({"id": identifier, "text": text}, ensure_ascii=False) + "\n")


def decode(content: bytes, fallback: str | None = None) -> str:
    """Decode UTF-8, without a byte order mark and with newlines as \\n.

    `fallback` is the encoding of content that is not UTF-8; without one, such content raises UnicodeDecodeError.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if fallback is None:
            raise
        text = content.decode(fallback)
    return text.replace("\r\n", "\n")
