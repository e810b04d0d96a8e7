"""Rows of single files and data sets: their numbers, and errors that are raised only for the malformed row itself."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velocitune_core.config import Source
from velocitune_core.data.readers import (
    NumberedRows,
    RowProblem,
    SourceError,
    dataset_rows,
    file_errors,
    jsonl_rows,
    open_dataset_folder,
    open_parquet,
    parquet_rows,
    text_rows,
)


def outcomes(rows: NumberedRows) -> list[tuple[int, str]]:
    """Number and text of every row, or its problem after an exclamation mark."""
    found = []
    for number, text_of in rows:
        try:
            found.append((number, text_of()))
        except RowProblem as problem:
            found.append((number, f"! {problem}"))
    return found


def test_a_malformed_line_leaves_the_others_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n\n{\n{"body": 1}\n{"text": "two"}')
    assert outcomes(jsonl_rows(path, "text")) == [
        (1, "one"),
        (3, "! not JSON: Expecting property name enclosed in double quotes at column 2"),
        (4, "! no field 'text'; it has 'body': set text_field"),
        (5, "two"),
    ]


def test_a_row_can_be_decoded_after_later_ones_were_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n{"text": "\xff"}\n{"text": "three"}\n')
    (_, first), (_, second), (_, third) = jsonl_rows(path, "text")
    assert (third(), first()) == ("three", "one")
    with pytest.raises(RowProblem, match=r"byte 26 \(0xff\)"):  # 16 bytes before the line, 10 within it
        second()


def test_a_byte_order_mark_is_ignored_only_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\n\xef\xbb\xbf{"text": "two"}\n')
    first, second = outcomes(jsonl_rows(path, "text"))
    assert first == (1, "one")
    assert second[1].startswith("! not JSON")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=8), compressed=st.booleans())
def test_any_text_survives_jsonl(tmp_path: Path, texts: list[str], compressed: bool) -> None:
    content = "".join(json.dumps({"body": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    path = tmp_path / ("a.jsonl.gz" if compressed else "a.jsonl")
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert outcomes(jsonl_rows(path, "body")) == list(enumerate(texts, start=1))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_all_string_columns_of_parquet_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"text {number % 50}" for number in range(2500)]  # three batches of rows
    pq.write_table(pa.table({"text": pa.array(texts).cast(kind), "n": range(2500)}), path, row_group_size=1100)
    assert outcomes(parquet_rows(path, "text")) == list(enumerate(texts, start=1))


def test_a_null_in_parquet_is_one_malformed_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None, "three"]}), path)
    assert outcomes(parquet_rows(path, "text")) == [
        (1, "one"),
        (2, "! field 'text' is null, not a string"),
        (3, "three"),
    ]


def test_a_missing_column_is_found_without_reading_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["one"]}), path)
    with pytest.raises(SourceError, match="no column 'text'; it has 'body'"), open_parquet(path, "text"):
        pass


def test_a_text_file_is_row_0_and_its_problem_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert outcomes(text_rows(path, "")) == [(0, "one\r\ntwo")]
    path.write_bytes(b"one\ntwo\nthree \xff")
    ((number, text_of),) = text_rows(path, "")
    with pytest.raises(RowProblem, match=r"byte 14 \(0xff\)") as caught:
        text_of()
    assert (number, caught.value.line) == (0, 3)


def test_rows_of_a_stream_are_checked_one_by_one() -> None:
    stream = iter([{"text": "one"}, {"body": "two"}, {"text": b"three"}])
    assert outcomes(dataset_rows(stream, "text")) == [
        (1, "one"),
        (2, "! no column 'text'; it has 'body': set text_field"),
        (3, "! field 'text' is bytes, not a string"),
    ]


def test_a_path_without_a_folder_can_be_a_hub_id(tmp_path: Path) -> None:
    assert open_dataset_folder(Source(type="datasets", path="owner/data-set.v2"), tmp_path) is None
    assert open_dataset_folder(Source(type="datasets", path="squad"), tmp_path) is None


@pytest.mark.parametrize("path", ["../name", "./name", "a/b/c", "/absolute", "name/"])
def test_any_other_path_without_a_folder_is_an_error(tmp_path: Path, path: str) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        open_dataset_folder(Source(type="datasets", path=path), tmp_path)


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), EOFError("early end"), pa.ArrowInvalid("bad magic")], ids=str
)
def test_errors_of_the_file_name_it(error: Exception) -> None:
    with pytest.raises(SourceError, match=r"^data/a: cannot be read") as caught, file_errors(Path("data/a")):
        raise error
    assert str(error) in str(caught.value) and caught.value.__cause__ is error


def test_problems_of_rows_and_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(RowProblem, match="a row"), file_errors(Path("data/a")):
        raise RowProblem("a row")
    with pytest.raises(AssertionError), file_errors(Path("data/a")):
        raise AssertionError
