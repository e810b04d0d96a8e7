"""The documents of one domain, streamed from files: jsonl(.gz/.zst), parquet, text, or a `datasets` data set."""

from __future__ import annotations

import glob
import io
import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from velocitune_core.config import Source

_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "parquet": (".parquet",),
    "text": ("",),  # any file
}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PROBLEMS_SHOWN = 10
_ROWS_AT_ONCE = 1024


class SourceError(ValueError):
    """Documents that cannot be read. The message names file, line or row, and what is wrong with it."""


class _RowProblem(Exception):
    """What is wrong with one line or row."""


@dataclass(frozen=True, slots=True)
class Document:
    text: str
    origin: str  # where it came from, such as "code.jsonl:17"


def read_documents(source: Source, root: Path) -> Iterator[Document]:
    """Stream the documents of a source in the order of its files' names; paths are relative to `root`.

    Only a batch of rows (or one text file) is in memory at a time. Raises SourceError for a missing or damaged file and
    for malformed rows: the first ten of a file and their number in one message (of a data set on the hub the first). No
    document that follows a malformed row is yielded.
    """
    if source.type == "datasets":
        yield from _read_dataset(source, root)
        return
    files, problems = _find_files(source, root)
    if problems:
        raise SourceError("\n".join(problems))
    rows = {"jsonl": _jsonl_rows, "parquet": _parquet_rows, "text": _text_rows}[source.type]
    for path in files:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        with _named_faults(path):
            yield from _checked(rows(path, source.text_field), str(path), name)


def check_source(source: Source, root: Path) -> list[str]:
    """What is wrong with a source as far as names and file headers tell: missing file, empty glob, unknown suffix,
    missing parquet or `datasets` column. An empty list says nothing against reading it; no rows are read.
    """
    if source.type == "datasets":
        try:
            _open_dataset_folder(source, root)
        except SourceError as error:
            return [str(error)]
        return []
    files, problems = _find_files(source, root)
    if source.type == "parquet":
        for path in files:
            try:
                with _named_faults(path), _open_parquet(path, source.text_field):
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


Rows = Iterator[tuple[int, Callable[[], str]]]  # number of the row from 1, and what gets its text or raises _RowProblem


def _checked(rows: Rows, place: str, name: str, *, look_on: bool = True) -> Iterator[Document]:
    """Documents up to the first malformed row; then only look for more of them, if at all, and raise."""
    problems: list[str] = []
    count = 0
    for number, text_of in rows:
        try:
            text = text_of()
        except _RowProblem as problem:
            count += 1
            if count <= _PROBLEMS_SHOWN:
                problems.append(f"{place}:{number}: {problem}")
            if not look_on:
                break
            continue
        if not count:
            yield Document(text, f"{name}:{number}" if number else name)
    if count:
        more = f"\n… {count} malformed rows in all" if count > len(problems) else ""
        raise SourceError("\n".join(problems) + more)


def _jsonl_rows(path: Path, text_field: str) -> Rows:
    offset = 0
    with _open_stream(path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, lambda line=line, offset=offset: _line_text(line, offset, text_field)
            offset += len(line)


def _line_text(line: bytes, offset: int, text_field: str) -> str:
    """The text of a jsonl line that starts at byte `offset` of the file."""
    try:
        row = json.loads(line.rstrip().decode("utf-8-sig" if offset == 0 else "utf-8"))
    except UnicodeDecodeError as error:
        raise _RowProblem(_undecodable(error, offset)) from None
    except json.JSONDecodeError as error:
        raise _RowProblem(f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise _RowProblem(f"not JSON that can be read: {error}") from None
    if not isinstance(row, dict):
        raise _RowProblem(f"a JSON {type(row).__name__}, not an object")
    if text_field not in row:
        raise _RowProblem(f"no field {text_field!r}; it has {_listed(row)}: set text_field")
    return _checked_text(row[text_field], text_field)


def _checked_text(value: Any, text_field: str) -> str:
    if not isinstance(value, str):
        raise _RowProblem(f"field {text_field!r} is {'null' if value is None else type(value).__name__}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair; no tokenizer takes it
        raise _RowProblem(f"field {text_field!r} has a lone surrogate at character {error.start}") from None
    return value


def _undecodable(error: UnicodeDecodeError, offset: int = 0) -> str:
    return f"byte {offset + error.start} (0x{error.object[error.start]:02x}) is not UTF-8; convert the file to UTF-8"


@contextmanager
def _open_stream(path: Path) -> Generator[BinaryIO]:
    # Arrow's decompressors notice a file that was cut off; zstandard's stream reader takes that for its end.
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.input_stream(str(path), compression=compression) as stream:
        yield io.BufferedReader(stream, 1 << 20)  # type: ignore[arg-type]


@contextmanager
def _named_faults(path: Path) -> Generator[None]:
    """Faults of the file system, of decompression and of Arrow become a SourceError that names the file."""
    try:
        yield
    except (OSError, EOFError, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read ({error}); is it damaged or cut off?") from error


@contextmanager
def _open_parquet(path: Path, text_field: str) -> Generator[pq.ParquetFile]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        if text_field not in schema.names:
            raise SourceError(f"{path}: no column {text_field!r}; it has {_listed(schema.names)}: set text_field")
        kind = schema.field(text_field).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(plain) or pa.types.is_large_string(plain)):
            raise SourceError(f"{path}: column {text_field!r} is {kind}, not string: set text_field")
        yield file


def _parquet_rows(path: Path, text_field: str) -> Rows:
    with _open_parquet(path, text_field) as file:
        number = 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[text_field]):
            for value in batch.column(0):
                number += 1
                yield number, lambda value=value: _parquet_text(value, text_field)


def _parquet_text(value: Any, text_field: str) -> str:
    try:
        return _checked_text(value.as_py(), text_field)
    except UnicodeDecodeError as error:
        raise _RowProblem(f"column {text_field!r}: {_undecodable(error)}") from None


def _text_rows(path: Path, _text_field: str) -> Rows:
    """A text file is one document, of row 0; a problem names its line."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, problem = content.count(b"\n", 0, error.start) + 1, _undecodable(error)
        raise SourceError(f"{path}:{line}: {problem}, or narrow the source's path to text files") from None
    yield 0, lambda: text


def _open_dataset_folder(source: Source, root: Path) -> Any | None:
    """The split of a `save_to_disk` folder with its text column; None for what can only be a hub id."""
    folder = root / source.path
    if not folder.is_dir():
        if _HUB_ID.fullmatch(source.path):
            return None
        raise SourceError(f"{folder}: no such folder, and {source.path!r} is no hub id")
    import datasets

    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise SourceError(f"{folder}: not a folder that `save_to_disk` wrote ({error})") from error
    if isinstance(dataset, datasets.DatasetDict):
        if source.split not in dataset:
            raise SourceError(f"{folder}: no split {source.split!r}; it has {_listed(dataset)}: set split")
        dataset = dataset[source.split]
    if source.text_field not in dataset.column_names:
        raise SourceError(
            f"{folder}: no column {source.text_field!r}; it has {_listed(dataset.column_names)}: set text_field"
        )
    return dataset.select_columns(source.text_field)


def _open_hub_dataset(source: Source) -> Any:
    import datasets

    try:
        return datasets.load_dataset(source.path, split=source.split, streaming=True)
    except Exception as error:  # the hub's client raises many kinds
        raise SourceError(
            f"{source.path}: neither a folder below data.path nor readable from the hub ({error})"
        ) from error


def _read_dataset(source: Source, root: Path) -> Iterator[Document]:
    dataset = _open_dataset_folder(source, root)
    remote = dataset is None
    if remote:
        dataset = _open_hub_dataset(source)
    rows = _dataset_rows(dataset, source.text_field)
    yield from _checked(rows, source.path, source.path, look_on=not remote)  # a remote one may be of any size


def _dataset_rows(dataset: Any, text_field: str) -> Rows:
    for number, row in enumerate(dataset, start=1):
        yield number, lambda row=row: _dataset_text(row, text_field)


def _dataset_text(row: Mapping[str, Any], text_field: str) -> str:
    if text_field not in row:
        raise _RowProblem(f"no column {text_field!r}; it has {_listed(row)}: set text_field")
    return _checked_text(row[text_field], text_field)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"
