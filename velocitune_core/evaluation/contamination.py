"""Contamination: questions of downstream tasks whose text occurs in training documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from velocitune_core.evaluation.benchmark_tasks import DownstreamError, Families

NGRAM_WORDS = 13  # as in GPT-3's contamination study (Brown et al., 2020); ten already match "0 1 2 3 4 5 6 7 8 9"

_WORD = re.compile(r"\w+")


def overlap(items: Mapping[str, str], documents: Iterable[str], n: int = NGRAM_WORDS) -> dict[str, str]:
    """Find the items that share n consecutive words with a document; return those words by identifier.

    Args:
        items: text by identifier; one of fewer than n words is searched for as a whole.
        documents: streamed; only the items are held in memory.

    Words are runs of letters, digits and underscores in lower case, so layout and punctuation do not matter. A list of
    numbers counts as words too, so a match need not be a leak.

    Raises DownstreamError for n below 1.
    """
    if n < 1:
        raise DownstreamError(f"n: {n} words; it must be at least 1")
    owners: dict[int, dict[str, list[str]]] = {}  # length → n-gram → items
    for identifier, text in items.items():
        words = _words(text)
        length = min(n, len(words))
        if length:
            for gram in _grams(words, length):
                owners.setdefault(length, {}).setdefault(gram, []).append(identifier)
    anchors = {length: {half for gram in found for half in _halves(gram)} for length, found in owners.items()}
    shared: dict[str, str] = {}
    for document in documents:
        words = _words(document)
        for length, found in owners.items():
            for gram in _candidates(words, length, anchors[length]):
                for identifier in found.get(gram, ()):
                    shared.setdefault(identifier, gram)
    return shared


def without_overlap(families: Families, documents: Iterable[str]) -> tuple[Families, dict[str, str]]:
    """Split off the instances that overlap with training documents.

    Returns the other instances, and by identifier the words that each removed instance shares. Raises DownstreamError
    if no instance of a task is left.
    """
    items = {each.identifier: each.source for tasks in families.values() for found in tasks.values() for each in found}
    shared = overlap(items, documents)
    clean = {
        family: {task: [each for each in found if each.identifier not in shared] for task, found in tasks.items()}
        for family, tasks in families.items()
    }
    empty = sorted(task for tasks in clean.values() for task, found in tasks.items() if not found)
    if empty:
        raise DownstreamError(
            f"downstream.tasks: every question of {', '.join(empty)} shares {NGRAM_WORDS} consecutive words with a "
            "training document; remove the tasks from downstream.tasks, or their text from the domains"
        )
    return clean, shared


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(words: list[str], length: int) -> Iterable[str]:
    return (" ".join(words[start : start + length]) for start in range(len(words) - length + 1))


def _halves(gram: str) -> Iterable[str]:
    words = gram.split()
    return _grams(words, _half(len(words)))


def _candidates(words: list[str], length: int, anchors: set[str]) -> Iterator[str]:
    """Yield the n-grams of a document that an item may contain too.

    Every n-gram of `length` words covers one of the document's half n-grams that begin at a multiple of the half
    length, so checking only those misses nothing and takes a fifth of the time.
    """
    half = _half(length)
    for start in range(0, len(words) - half + 1, half):
        if " ".join(words[start : start + half]) in anchors:
            for first in range(max(0, start - length + half), min(start, len(words) - length) + 1):
                yield " ".join(words[first : first + length])


def _half(length: int) -> int:
    return (length + 1) // 2
