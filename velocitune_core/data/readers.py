"""Readers of the rows of one file or `datasets` data set. A malformed row raises only when its text is requested."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from velocitune_core.config import Source
from velocitune_core.data.compressed import open_stream
from velocitune_core.data.json_array import ArrayError, array_elements
from velocitune_core.data.source_files import holds_array
from velocitune_core.data.texts import (
    BYTE_ORDER_MARK,
    LONG_CHARACTERS,
    FileText,
    Text,
    UndecodableError,
    decoded_parts,
    nul_problem,
    undecodable,
)

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # so neither `../folder` is one, nor a folder's name that is misspelt
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 1024, 1 << 26
_DATASET_ROWS = 64  # copied at once from a data set in an order of its own
_STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


class SourceError(ValueError):
    """A source that cannot be read; the message names file, line or row, and the problem."""


class RowProblem(Exception):
    """The problem of one malformed row, with its line in the file if that is not the row's number."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


# Row numbers from 1, each with a function that returns the row's text or raises RowProblem.
NumberedRows = Iterator[tuple[int, Callable[[], Text]]]


def jsonl_rows(path: Path, text_field: str) -> NumberedRows:
    """Yield the non-blank lines of a jsonl file, or the elements of a .json file that is one array; both compressed."""
    if holds_array(path):
        yield from _array_rows(path, text_field)
        return
    offset = 0
    with open_stream(path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, lambda line=line, offset=offset: _line_text(line, offset, text_field)
            offset += len(line)


def _array_rows(path: Path, text_field: str) -> NumberedRows:
    try:
        for number, element in enumerate(array_elements(decoded_parts(path)), start=1):
            yield number, lambda element=element: _object_text(element, text_field)
    except (ArrayError, UndecodableError) as error:
        raise SourceError(f"{path}: {error}") from None


def _line_text(line: bytes, offset: int, text_field: str) -> str:
    """Return the text of a jsonl line that starts at byte `offset` of the file."""
    if (nul := line.find(b"\0")) >= 0:
        raise RowProblem(nul_problem(offset + nul))
    try:
        row = json.loads(
            line.rstrip().decode("utf-8").removeprefix(BYTE_ORDER_MARK)
        )  # in mid-file where files were joined
    except UnicodeDecodeError as error:
        raise RowProblem(str(undecodable(error, offset))) from None
    except json.JSONDecodeError as error:
        raise RowProblem(f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise RowProblem(f"not JSON that can be read: {error}") from None
    return _object_text(row, text_field)


def _object_text(row: Any, text_field: str) -> str:
    if not isinstance(row, dict):
        raise RowProblem(f"a JSON {type(row).__name__}, not an object")
    if text_field not in row:
        raise RowProblem(f"no field {text_field!r}; it has {_listed(row)}: set text_field")
    return _checked_text(row[text_field], text_field)


def _checked_text(value: Any, text_field: str) -> str:
    if not isinstance(value, str):
        raise RowProblem(f"field {text_field!r} is {'null' if value is None else type(value).__name__}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can contain half a surrogate pair; no tokenizer accepts it
        raise RowProblem(f"field {text_field!r} has a lone surrogate at character {error.start}") from None
    return value


@contextmanager
def file_errors(path: Path) -> Generator[None]:
    """Convert errors of the file system, of decompression and of Arrow into a SourceError that names the file."""
    try:
        yield
    except (OSError, EOFError, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read ({error}); is it corrupt or truncated?") from error


@contextmanager
def open_parquet(path: Path, text_field: str) -> Generator[pq.ParquetFile]:
    """Open a parquet file. Raises SourceError unless its column `text_field` exists and holds strings."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        if text_field not in schema.names:
            raise SourceError(f"{path}: no column {text_field!r}; it has {_listed(schema.names)}: set text_field")
        if schema.names.count(text_field) > 1:
            raise SourceError(f"{path}: {schema.names.count(text_field)} columns are named {text_field!r}; rename them")
        if problem := _not_strings(schema.field(text_field).type, text_field):
            raise SourceError(f"{path}: {problem}")
        yield file


def _not_strings(kind: pa.DataType, text_field: str) -> str | None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if any(is_kind(plain) for is_kind in _STRINGS):
        return None
    return f"column {text_field!r} is {kind}, not string: set text_field"


def parquet_rows(path: Path, text_field: str) -> NumberedRows:
    """Yield the rows of a parquet file, a batch in memory at a time."""
    with open_parquet(path, text_field) as file:
        number = 0
        for group in range(file.num_row_groups):
            rows = _rows_at_once(file.metadata.row_group(group), text_field)
            for batch in file.iter_batches(rows, row_groups=[group], columns=[text_field]):
                for value in batch.column(0):
                    number += 1
                    yield number, lambda value=value: _arrow_text(value, text_field)


def _rows_at_once(group: pq.RowGroupMetaData, text_field: str) -> int:
    """Return how many rows of a row group take about _BYTES_AT_ONCE."""
    columns = [group.column(number) for number in range(group.num_columns)]
    size = sum(each.total_uncompressed_size for each in columns if each.path_in_schema == text_field)
    return max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE * group.num_rows // max(size, 1)))


def _arrow_text(value: Any, text_field: str) -> str:
    try:
        return _checked_text(value.as_py(), text_field)
    except UnicodeDecodeError as error:
        raise RowProblem(f"column {text_field!r}: {undecodable(error)}") from None


def text_rows(path: Path, _text_field: str) -> NumberedRows:
    """Yield a text file, which may be compressed, as a single row, number 0; a problem names the line in the file.

    A file of more than LONG_CHARACTERS is not kept in memory.
    """
    yield 0, lambda: _file_text(path)


def _file_text(path: Path) -> Text:
    start, characters = "", 0
    try:
        for part in decoded_parts(path):
            characters += len(part)
            start = start + part if characters <= LONG_CHARACTERS else ""
    except UndecodableError as error:
        raise RowProblem(f"{error}, or narrow the source's path to text files", error.line) from None
    return start if characters <= LONG_CHARACTERS else FileText(path)


def open_dataset_folder(source: Source, root: Path) -> Any | None:
    """Return the text column of a split of a `save_to_disk` folder; None if the path can only be a hub id."""
    folder = root / source.path
    if not folder.is_dir():
        if _HUB_ID.fullmatch(source.path):
            return None
        raise SourceError(f"{folder}: no such folder, and {source.path!r} is not a hub id, which is OWNER/NAME")
    if not any(folder.iterdir()):
        raise SourceError(f"{folder}: is empty; put a data set there that `save_to_disk` wrote")
    import datasets

    splits = _splits(folder)
    if splits is not None and source.split not in splits:
        raise SourceError(f"{folder}: no split {source.split!r}; it has {_listed(splits)}: set split")
    where = folder if splits is None else folder / source.split  # other splits may be missing
    try:
        dataset = datasets.load_from_disk(str(where))
        assert isinstance(dataset, datasets.Dataset), "of one split"
    except Exception as error:
        raise SourceError(f"{where}: not a folder that `save_to_disk` wrote ({error})") from error
    if source.text_field not in dataset.column_names:
        raise SourceError(
            f"{folder}: no column {source.text_field!r}; it has {_listed(dataset.column_names)}: set text_field"
        )
    if problem := _not_strings(dataset.data.schema.field(source.text_field).type, source.text_field):
        raise SourceError(f"{folder}: {problem}")
    return dataset.with_format("arrow").select_columns(source.text_field)  # `set_format` is saved with a data set


def _splits(folder: Path) -> list[str] | None:
    """Return the splits of a `save_to_disk` folder; None for a data set without splits."""
    try:
        return list(json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def other_splits(source: Source, root: Path) -> list[str]:
    """Return the splits of a `save_to_disk` folder that the source does not take; none for a data set on the hub."""
    return [split for split in _splits(root / source.path) or [] if split != source.split]


def hub_revision(source: Source) -> str:
    """Return the commit that a source's revision names at present on the hub. Raises SourceError if there is none."""
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(source.path, revision=source.revision).sha
    except Exception as error:  # the hub's client raises many kinds
        raise _not_on_the_hub(source, error) from error
    assert commit is not None, "the hub gives one with every data set"
    return commit


def open_hub_dataset(source: Source, revision: str) -> Any:
    """Return a split of a data set on the hub at a commit, streamed. Raises SourceError if it cannot be loaded."""
    import datasets

    try:
        return datasets.load_dataset(source.path, split=source.split, revision=revision, streaming=True)
    except Exception as error:  # the hub's client raises many kinds
        raise _not_on_the_hub(source, error) from error


def _not_on_the_hub(source: Source, error: Exception) -> SourceError:
    return SourceError(
        f"{source.path}: neither a folder below data.path nor readable from the hub, revision "
        f"{source.revision or 'main'} ({error})"
    )


def folder_rows(dataset: Any, text_field: str) -> NumberedRows:
    """Yield the rows of what `open_dataset_folder` returned, a batch in memory at a time."""
    number = 0
    for batch in dataset.iter(_DATASET_ROWS):
        for value in batch.column(text_field):
            number += 1
            yield number, lambda value=value: _arrow_text(value, text_field)


def streamed_rows(dataset: Iterable[Mapping[str, Any]], source: Source) -> NumberedRows:
    """Yield the rows of a data set on the hub. Raises SourceError, with the row, where reading fails."""
    rows, number = iter(dataset), 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except Exception as error:  # of a network, of many formats, of a script's types
            raise SourceError(f"{source.path}: row {number} cannot be read ({error}); start again to go on") from error
        if row is None:
            return
        yield number, lambda row=row: _dataset_text(row, source.text_field)


def _dataset_text(row: Mapping[str, Any], text_field: str) -> str:
    if text_field not in row:
        raise RowProblem(f"no column {text_field!r}; it has {_listed(row)}: set text_field")
    return _checked_text(row[text_field], text_field)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"
