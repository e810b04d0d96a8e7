"""The split of documents into training and held-out ones, by a hash of their text."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator

from velocitune_core.data.texts import Text, is_long, text_parts, whole_text


def document_digest(text: str) -> bytes:
    """Return the BLAKE2b digest, 16 bytes, of a text in NFC with every run of whitespace replaced by one space."""
    normalised = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.blake2b(normalised.encode(), digest_size=16).digest()


def measured_digest(parts: Iterable[str]) -> tuple[bytes, int]:
    """Return the `document_digest` of a text in parts, and its number of characters without whitespace at its ends."""
    digest = hashlib.blake2b(digest_size=16)
    started = gap = False
    characters = trailing = 0  # up to the last one, and whitespace after it
    for part in _normalisable(parts):
        kept = part.strip()
        if not kept:
            trailing += len(part)
            gap = True
            continue
        leading = len(part) - len(part.lstrip())
        characters += (trailing + leading if started else 0) + len(kept)
        trailing = len(part) - leading - len(kept)
        if started and (gap or leading):
            digest.update(b" ")
        digest.update(" ".join(unicodedata.normalize("NFC", kept).split()).encode())
        started, gap = True, trailing > 0
    return digest.digest(), characters


def is_held_out(digest: bytes, fraction: float) -> bool:
    """Return whether the document with this digest is held out, for an expected share `fraction` of all documents.

    The decision depends on the text alone: adding documents moves none to the other split, a text is in the same split
    in every domain, and what a fraction holds out, every larger fraction holds out too.
    """
    return int.from_bytes(digest[:8]) < fraction * 2.0**64


def _normalisable(parts: Iterable[str]) -> Iterator[str]:
    """Yield the same text in parts that begin where NFC joins nothing with what comes before."""
    rest = ""
    for part in parts:
        text = rest + part
        cut = next((at for at in range(len(text) - 1, -1, -1) if _begins(text[at])), 0)
        if cut:
            yield text[:cut]
        rest = text[cut:]
    if rest:
        yield rest


def _begins(character: str) -> bool:
    """Return whether NFC never joins a character with the one before: no mark, and no vowel or final of Hangul."""
    return unicodedata.category(character)[0] != "M" and not "\u1100" <= character <= "\u11ff"


def identified(text: Text) -> tuple[bytes, int]:
    """Return the digest of a text, and its number of characters without whitespace at its ends."""
    if is_long(text):
        return measured_digest(text_parts(text))
    plain = whole_text(text)
    return document_digest(plain), len(plain.strip())
