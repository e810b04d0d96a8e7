"""The documents of one domain, streamed from jsonl, parquet or text files, or a `datasets` data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from velocitune_core.config import Source
from velocitune_core.data.readers import (
    NumberedRows,
    RowProblem,
    SourceError,
    file_errors,
    folder_rows,
    hub_revision,
    jsonl_rows,
    open_dataset_folder,
    open_hub_dataset,
    open_parquet,
    other_splits,
    parquet_rows,
    streamed_rows,
    text_rows,
)
from velocitune_core.data.source_files import find_files, unwatched
from velocitune_core.data.texts import Text, whole_text

_PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Document:
    """A text and its place in the source."""

    content: Text  # a file of a long text is not in memory
    origin: str  # such as "code.jsonl:17"

    @property
    def text(self) -> str:
        """The whole text."""
        return whole_text(self.content)


@dataclass
class MalformedRows:
    """Rows of one source without a valid text: up to `allowed` of them are skipped, one more is an error."""

    allowed: int = 0
    count: int = 0
    shown: list[str] = field(default_factory=list)  # the first ten, as "file:line: what is wrong"

    @property
    def too_many(self) -> bool:
        """Whether there are more than allowed."""
        return self.count > self.allowed

    def add(self, problem: str) -> None:
        """Count a row, described as "file:line: what is wrong"."""
        self.count += 1
        if self.count <= _PROBLEMS_SHOWN:
            self.shown.append(problem)

    def error(self, *others: str) -> SourceError:
        """Return the error that reports these rows, together with other problems of the source."""
        rows = "row" if self.count == 1 else "rows"
        advice = f"data.max_malformed_rows allows {self.allowed}: fix the rows, or raise it"
        return SourceError("\n".join([*self.shown, *others, f"{self.count} malformed {rows} in all, {advice}"]))


def read_documents(
    source: Source, root: Path, malformed: MalformedRows | None = None, revision: str | None = None
) -> Iterator[Document]:
    """Yield the documents of a source in the order of its files' names; paths are relative to `root`.

    Only a batch of rows is in memory at a time. A text file is one row; of a long one only parts are in memory.
    Malformed rows are skipped and counted in `malformed`; without it none is allowed. After one more than allowed no
    more documents are yielded: the rest of the source is only read to count further malformed rows (not of a data set
    on the hub), and SourceError reports the first ten and their number. Raises SourceError for missing and corrupt
    files too: after one that is corrupt, the others are only read to find all that are.

    Args:
        revision: commit of a data set on the hub; None for the one that its revision names at present.
    """
    malformed = MalformedRows() if malformed is None else malformed
    if source.type == "datasets":
        yield from _read_dataset(source, root, malformed, revision)
        return
    found = find_files(source, root)
    if found.problems:
        raise SourceError("\n".join(found.problems))
    rows = {"jsonl": jsonl_rows, "parquet": parquet_rows, "text": text_rows}[source.type]
    corrupt: list[str] = []
    for path in found.files:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        try:
            with file_errors(path):
                for document in _checked(rows(path, source.text_field), str(path), name, malformed):
                    if not corrupt:
                        yield document
        except SourceError as error:
            corrupt.append(str(error))
    if len(corrupt) > _PROBLEMS_SHOWN:
        corrupt[_PROBLEMS_SHOWN:] = [f"{len(corrupt)} files in all that cannot be read"]
    if malformed.too_many:
        raise malformed.error(*corrupt)
    if corrupt:
        raise SourceError("\n".join(corrupt))


def is_on_hub(source: Source, root: Path) -> bool:
    """Return whether a source is a data set on the hub, which may be arbitrarily large."""
    return source.type == "datasets" and not (root / source.path).is_dir()


def source_files(source: Source, root: Path) -> list[tuple[str, int, int]] | None:
    """Return path, size in bytes and modification time in nanoseconds of each file of a source; None for the hub."""
    if is_on_hub(source, root):
        return None
    facts = [(str(file), file.stat()) for file in _all_files(source, root)]
    return [(path, fact.st_size, fact.st_mtime_ns) for path, fact in facts]


def unwatched_files(source: Source, root: Path) -> list[tuple[str, int, int]]:
    """Return the same of the files that DVC does not watch as part of `root`: outside of it, or behind linked folders.

    Empty for a data set on the hub, which is read at a commit.
    """
    if is_on_hub(source, root):
        return []
    facts = [(str(file), file.stat()) for file in unwatched(_all_files(source, root), root)]
    return [(path, fact.st_size, fact.st_mtime_ns) for path, fact in facts]


def unwatched_digest(source: Source, root: Path) -> str | None:
    """Return a hash of `unwatched_files`; None if there are none."""
    facts = unwatched_files(source, root)
    return sha256(json.dumps(facts).encode()).hexdigest() if facts else None


def left_out(source: Source, root: Path) -> list[str]:
    """Return what a source holds and is not read, as "what: why": files of its folder, splits of a data set."""
    if source.type == "datasets":
        others = other_splits(source, root)
        return [f"{root / source.path}: split {split!r}, as `split` is {source.split!r}" for split in others]
    return find_files(source, root).left_out


def _all_files(source: Source, root: Path) -> list[Path]:
    if source.type != "datasets":
        return find_files(source, root).files
    return sorted(file for file in (root / source.path).rglob("*") if file.is_file())


def check_source(source: Source, root: Path) -> list[str]:
    """Return the problems of a source that show without reading rows.

    These are a missing file, a glob without matches, an unknown suffix, and a column of a parquet file or `datasets`
    folder that is missing or holds no strings.
    """
    if source.type == "datasets":
        try:
            open_dataset_folder(source, root)
        except SourceError as error:
            return [str(error)]
        return []
    found = find_files(source, root)
    if source.type == "parquet":
        for path in found.files:
            try:
                with file_errors(path), open_parquet(path, source.text_field):
                    pass
            except SourceError as error:
                found.problems.append(str(error))
    return found.problems


def _checked(
    rows: NumberedRows, place: str, name: str, malformed: MalformedRows, *, keep_counting: bool = True
) -> Iterator[Document]:
    """Yield documents until there are too many malformed rows; then only count more of those, or stop."""
    for number, text_of in rows:
        try:
            text = text_of()
        except RowProblem as problem:
            malformed.add(f"{place}:{problem.line or number}: {problem}")
            if malformed.too_many and not keep_counting:
                return
            continue
        if not malformed.too_many:
            yield Document(text, f"{name}:{number}" if number else name)


def _read_dataset(source: Source, root: Path, malformed: MalformedRows, revision: str | None) -> Iterator[Document]:
    dataset = open_dataset_folder(source, root)
    remote = dataset is None
    if remote:
        rows = streamed_rows(open_hub_dataset(source, revision or hub_revision(source)), source)
    else:
        rows = folder_rows(dataset, source.text_field)
    corrupt: list[str] = []
    try:
        with file_errors(root / source.path):
            keep_counting = not remote  # a remote one may be arbitrarily large
            yield from _checked(rows, source.path, source.path, malformed, keep_counting=keep_counting)
    except SourceError as error:
        corrupt.append(str(error))
    if malformed.too_many:
        raise malformed.error(*corrupt)
    if corrupt:
        raise SourceError("\n".join(corrupt))
