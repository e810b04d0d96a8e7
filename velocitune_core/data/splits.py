"""The split of documents into training and held-out ones, by a hash of their text."""

from __future__ import annotations

import hashlib
import unicodedata


def document_digest(text: str) -> bytes:
    """Return the BLAKE2b digest, 16 bytes, of a text in NFC with every run of whitespace replaced by one space."""
    normalised = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.blake2b(normalised.encode(), digest_size=16).digest()


def is_held_out(digest: bytes, fraction: float) -> bool:
    """Return whether the document with this digest is held out, for an expected share `fraction` of all documents.

    The decision depends on the text alone: adding documents moves none to the other split, a text is in the same split
    in every domain, and what a fraction holds out, every larger fraction holds out too.
    """
    return int.from_bytes(digest[:8]) < fraction * 2.0**64
