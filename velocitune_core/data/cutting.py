"""Long texts in pieces with the ids of the whole text: cut only where nothing joins what is before and after."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

PIECE_CHARACTERS = 1 << 18
LONGEST_PIECE = 1 << 22  # that may lie between two cuts; tokenisation needs about 200 bytes of memory per character
CONTEXT = 256  # characters on both sides of a cut that are looked at; those before it are tokenised with the next piece
_SEARCHED = 1 << 13  # characters before the wanted end of a piece, in which cuts are looked for
_TRIED = 24

# Between the end of a word or sign and a single space; between the end of a word and what is no word.
_CANDIDATE = re.compile(r"(?<=\S)(?= \S)|(?<=\w)(?=\W)")


class UncuttableError(ValueError):
    """A text without a place where it can be cut."""


class Cutter:
    """Pieces of long texts for one tokenizer.

    A cut is taken where, with `CONTEXT` characters on both sides, (1) the normalizer gives the same text for the sides
    apart as together; (2) the pre-tokenizer cuts there and gives the same words, or no token of the vocabulary holds
    the two characters at the cut side by side, so that no merge can cross it; and (3) no token lies across it.
    Pre-tokenizers look no further than a few characters, and a model treats each word by itself, so this holds for the
    whole text.

    Args:
        encoder: a tokenizers.Tokenizer.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._unprefixed = _without_prefix(encoder)  # whose normalizer and pre-tokenizer are tried around a cut
        self._pairs = _joined_pairs(encoder)

    def ids(self, text: str, before: str = "") -> list[int]:
        """Return the ids of a piece, without special tokens, as they are after `before`, the end of the last piece.

        A tokenizer may put a blank before a text, and again after each added token of it, so that a piece is encoded
        with some text before it.
        """
        return self._encoded(before + text)[len(self._encoded(before)) :] if before else self._encoded(text)

    def pieces(self, parts: Iterable[str], size: int = PIECE_CHARACTERS, longest: int = LONGEST_PIECE) -> Iterator[str]:
        """Yield the text that `parts` make up, in pieces of about `size` characters.

        Raises UncuttableError where more than `longest` characters cannot be cut.
        """
        text, wanted = "", size
        for part in _sliced(parts, size):
            text += part
            while len(text) >= wanted + CONTEXT:
                if cut := self._cut(text, wanted):
                    yield text[:cut]
                    text, wanted = text[cut:], size
                    continue
                wanted += size
                if wanted > longest:
                    raise UncuttableError(
                        f"nowhere in {wanted:,} characters after {text[:40]!r} does the tokenizer cut the text, so it "
                        "cannot be tokenised in pieces; divide it into several documents"
                    )
        if text:
            yield text

    def _cut(self, text: str, wanted: int) -> int | None:
        """Return the last place up to `wanted` where the text may be cut, of those that are tried."""
        start = max(1, wanted - _SEARCHED)
        candidates = [match.start() for match in _CANDIDATE.finditer(text, start, wanted + 2)]
        candidates = [at for at in candidates if start <= at <= wanted]
        return next((at for at in reversed(candidates[-_TRIED:]) if self._is_safe(text, at)), None)

    def _is_safe(self, text: str, at: int) -> bool:
        left, right = text[max(0, at - CONTEXT) : at], text[at : at + CONTEXT]
        whole, before, after = (self._normalised(each) for each in (left + right, left, right))
        if before + after != whole:
            return False
        together, first, second = (self._words(each) for each in (whole, before, after))
        if together != first + second and not self._nothing_joins(together, first, second):
            return False
        return self._encoded(left) + self.ids(right, left) == self._encoded(left + right)

    def _encoded(self, text: str) -> list[int]:
        return self._encoder.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def _normalised(self, text: str) -> str:
        normalizer = self._unprefixed.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def _words(self, text: str) -> list[str]:
        pre_tokenizer = self._unprefixed.pre_tokenizer
        return [text] if pre_tokenizer is None else [word for word, _ in pre_tokenizer.pre_tokenize_str(text)]

    def _nothing_joins(self, together: list[str], first: list[str], second: list[str]) -> bool:
        """Return whether the cut is inside a word, but between characters that no token has side by side."""
        if not first or not second or "".join(together) != "".join(first + second):
            return False
        return self._pairs is not None and first[-1][-1] + second[0][0] not in self._pairs


def _sliced(parts: Iterable[str], size: int) -> Iterator[str]:
    for part in parts:
        for start in range(0, len(part), size):
            yield part[start : start + size]


def _joined_pairs(encoder: Any) -> set[str] | None:
    """Return every two characters that lie side by side in a token; None where a model joins by another rule."""
    model = json.loads(encoder.to_str())["model"]
    marks = [model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix")]
    if model.get("type") not in {"BPE", "Unigram"} or any(marks):
        return None
    return {token[at : at + 2] for token in encoder.get_vocab() for at in range(len(token) - 1)}


def _without_prefix(encoder: Any) -> Any:
    """Return a copy that puts no blank before a text."""
    import tokenizers

    tree = json.loads(encoder.to_str())
    tree["normalizer"] = _plain(tree.get("normalizer"))
    tree["pre_tokenizer"] = _plain(tree.get("pre_tokenizer"))
    return tokenizers.Tokenizer.from_str(json.dumps(tree))


def _plain(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a normalizer or pre-tokenizer, or a sequence of them, without what is put before a text."""
    if part is None or part["type"] == "Prepend":
        return None
    changed = dict(part)
    for key in ("normalizers", "pretokenizers"):
        if key in changed:
            changed[key] = [plain for each in changed[key] if (plain := _plain(each)) is not None]
    if "prepend_scheme" in changed:
        changed["prepend_scheme"] = "never"
    if "add_prefix_space" in changed:
        changed["add_prefix_space"] = False
    return changed
