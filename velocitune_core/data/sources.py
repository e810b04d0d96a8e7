"""The documents of one domain, streamed from jsonl(.gz/.zst), parquet or text files, or a `datasets` data set."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from velocitune_core.config import Source
from velocitune_core.data.readers import (
    NumberedRows,
    RowProblem,
    SourceError,
    dataset_rows,
    file_errors,
    hub_revision,
    jsonl_rows,
    open_dataset_folder,
    open_hub_dataset,
    open_parquet,
    parquet_rows,
    text_rows,
)

_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "parquet": (".parquet",),
    "text": ("",),  # any file
}
_PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Document:
    """A text and its place in the source."""

    text: str
    origin: str  # such as "code.jsonl:17"


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

    Only a batch of rows (or one text file) is in memory at a time. A text file is one row. Malformed rows are skipped
    and counted in `malformed`; without it none is allowed. After one more than allowed no more documents are yielded:
    the rest of the source is only read to count further malformed rows (not of a data set on the hub), and SourceError
    reports the first ten and their number. Raises SourceError for a missing or corrupt file too.

    Args:
        revision: commit of a data set on the hub; None for the one that its revision names at present.
    """
    malformed = MalformedRows() if malformed is None else malformed
    if source.type == "datasets":
        yield from _read_dataset(source, root, malformed, revision)
        return
    files, problems = _find_files(source, root)
    if problems:
        raise SourceError("\n".join(problems))
    rows = {"jsonl": jsonl_rows, "parquet": parquet_rows, "text": text_rows}[source.type]
    corrupt: list[str] = []
    for path in files:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        try:
            with file_errors(path):
                yield from _checked(rows(path, source.text_field), str(path), name, malformed)
        except SourceError as error:
            if not malformed.too_many:
                raise
            corrupt.append(str(error))
    if malformed.too_many:
        raise malformed.error(*corrupt)


def is_on_hub(source: Source, root: Path) -> bool:
    """Return whether a source is a data set on the hub, which may be arbitrarily large."""
    return source.type == "datasets" and not (root / source.path).is_dir()


def source_files(source: Source, root: Path) -> list[tuple[str, int, int]] | None:
    """Return path, size in bytes and modification time in nanoseconds of each file of a source; None for the hub."""
    if is_on_hub(source, root):
        return None
    if source.type == "datasets":
        files = sorted(file for file in (root / source.path).rglob("*") if file.is_file())
    else:
        files = _find_files(source, root)[0]
    facts = [(str(file), file.stat()) for file in files]
    return [(path, fact.st_size, fact.st_mtime_ns) for path, fact in facts]


def check_source(source: Source, root: Path) -> list[str]:
    """Return the problems of a source that show without reading rows.

    These are a missing file, a glob without matches, an unknown suffix, and a missing column of a parquet file or
    `datasets` folder.
    """
    if source.type == "datasets":
        try:
            open_dataset_folder(source, root)
        except SourceError as error:
            return [str(error)]
        return []
    files, problems = _find_files(source, root)
    if source.type == "parquet":
        for path in files:
            try:
                with file_errors(path), open_parquet(path, source.text_field):
                    pass
            except SourceError as error:
                problems.append(str(error))
    return problems


def _find_files(source: Source, root: Path) -> tuple[list[Path], list[str]]:
    """Return the sorted files of a file name, folder or glob without hidden ones, and the problems with them."""
    path, suffixes = root / source.path, _SUFFIXES[source.type]
    kinds = " or ".join(suffixes)
    if path.is_dir():
        found = [file for file in _visible(path, path.rglob("*")) if file.name.endswith(suffixes)]
        return found, [] if found else [f"{path}: no {kinds or 'text'} file in this folder"]
    if path.is_file():
        found = [path]
    elif glob.has_magic(source.path):
        found = _visible(root, map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - the path may be absolute
        if not found:
            return [], [f"{path}: no file matches"]
    else:
        return [], [f"{path}: no such file or folder; check `path` of the source and data.path"]
    unknown = [file for file in found if not file.name.endswith(suffixes)]
    problems = [f"{file}: not a {kinds} file; rename it or change the source's type" for file in unknown]
    return [file for file in found if file not in unknown], problems


def _visible(base: Path, paths: Iterator[Path]) -> list[Path]:
    """Return the files among `paths`, sorted, without those that are hidden at or below `base`."""

    def hidden(path: Path) -> bool:
        parts = path.relative_to(base).parts if path.is_relative_to(base) else path.parts[-1:]
        return any(part.startswith(".") and part != ".." for part in parts)

    return sorted(path for path in paths if path.is_file() and not hidden(path))


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
        dataset = open_hub_dataset(source, revision or hub_revision(source))
    rows = dataset_rows(dataset, source.text_field)
    keep_counting = not remote  # a remote one may be arbitrarily large
    yield from _checked(rows, source.path, source.path, malformed, keep_counting=keep_counting)
    if malformed.too_many:
        raise malformed.error()
