"""The documents of one domain, streamed from files: jsonl(.gz/.zst), parquet, text, or a `datasets` data set."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from velocitune_core.config import Source
from velocitune_core.data.readers import (
    RowProblem,
    Rows,
    SourceError,
    dataset_rows,
    jsonl_rows,
    named_faults,
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
    text: str
    origin: str  # where it came from, such as "code.jsonl:17"


@dataclass
class MalformedRows:
    """Rows of one source that hold no text: `allowed` of them are passed over, one more is an error."""

    allowed: int = 0
    count: int = 0
    shown: list[str] = field(default_factory=list)  # the first ten, as "file:line: what is wrong"

    @property
    def too_many(self) -> bool:
        return self.count > self.allowed

    def note(self, problem: str) -> None:
        self.count += 1
        if self.count <= _PROBLEMS_SHOWN:
            self.shown.append(problem)

    def error(self, *others: str) -> SourceError:
        """All of them, and what else is wrong with the source."""
        rows = "row" if self.count == 1 else "rows"
        advice = f"data.max_malformed_rows lets {self.allowed} pass: mend them, or raise it"
        return SourceError("\n".join([*self.shown, *others, f"{self.count} malformed {rows} in all, {advice}"]))


def read_documents(source: Source, root: Path, malformed: MalformedRows | None = None) -> Iterator[Document]:
    """Stream the documents of a source in the order of its files' names; paths are relative to `root`.

    Only a batch of rows (or one text file) is in memory at a time. `malformed` counts the rows that were passed over;
    without it none may be. One more than allowed ends the documents: the rest of the source is only looked through for
    others, and a SourceError shows the first ten and their number (of a data set on the hub, those up to there). Raises
    SourceError for a missing or damaged file too. A text file is one row.
    """
    malformed = MalformedRows() if malformed is None else malformed
    if source.type == "datasets":
        yield from _read_dataset(source, root, malformed)
        return
    files, problems = _find_files(source, root)
    if problems:
        raise SourceError("\n".join(problems))
    rows = {"jsonl": jsonl_rows, "parquet": parquet_rows, "text": text_rows}[source.type]
    damaged: list[str] = []
    for path in files:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        try:
            with named_faults(path):
                yield from _checked(rows(path, source.text_field), str(path), name, malformed)
        except SourceError as error:
            if not malformed.too_many:
                raise
            damaged.append(str(error))
    if malformed.too_many:
        raise malformed.error(*damaged)


def source_files(source: Source, root: Path) -> list[tuple[str, int, int]] | None:
    """What a source is read from: each file's path, bytes and time of change in nanoseconds. None for the hub."""
    if source.type != "datasets":
        files = _find_files(source, root)[0]
    elif (root / source.path).is_dir():
        files = sorted(file for file in (root / source.path).rglob("*") if file.is_file())
    else:
        return None
    facts = [(str(file), file.stat()) for file in files]
    return [(path, fact.st_size, fact.st_mtime_ns) for path, fact in facts]


def check_source(source: Source, root: Path) -> list[str]:
    """What is wrong with a source as far as names and file headers tell: missing file, empty glob, unknown suffix,
    missing parquet or `datasets` column. An empty list says nothing against reading it; no rows are read.
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
                with named_faults(path), open_parquet(path, source.text_field):
                    pass
            except SourceError as error:
                problems.append(str(error))
    return problems


def _find_files(source: Source, root: Path) -> tuple[list[Path], list[str]]:
    """The files of a file name, folder or glob, sorted, and what is wrong with them. Hidden files are passed over."""
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
    def hidden(path: Path) -> bool:
        parts = path.relative_to(base).parts if path.is_relative_to(base) else path.parts[-1:]
        return any(part.startswith(".") and part != ".." for part in parts)

    return sorted(path for path in paths if path.is_file() and not hidden(path))


def _checked(
    rows: Rows, place: str, name: str, malformed: MalformedRows, *, look_on: bool = True
) -> Iterator[Document]:
    """Documents, until there are too many malformed rows; then only look for more of them, if at all."""
    for number, text_of in rows:
        try:
            text = text_of()
        except RowProblem as problem:
            malformed.note(f"{place}:{problem.line or number}: {problem}")
            if malformed.too_many and not look_on:
                return
            continue
        if not malformed.too_many:
            yield Document(text, f"{name}:{number}" if number else name)


def _read_dataset(source: Source, root: Path, malformed: MalformedRows) -> Iterator[Document]:
    dataset = open_dataset_folder(source, root)
    remote = dataset is None
    if remote:
        dataset = open_hub_dataset(source)
    rows = dataset_rows(dataset, source.text_field)
    look_on = not remote  # a remote one may be of any size
    yield from _checked(rows, source.path, source.path, malformed, look_on=look_on)
    if malformed.too_many:
        raise malformed.error()
