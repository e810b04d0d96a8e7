"""Rows of single files and data sets: their numbers, and errors that are raised only for the malformed row itself."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velocitune_core.config import Source
from velocitune_core.data.readers import (
    NumberedRows,
    RowProblem,
    SourceError,
    file_errors,
    jsonl_rows,
    open_dataset_folder,
    open_parquet,
    parquet_rows,
    streamed_rows,
    text_rows,
)
from velocitune_core.data.sources import read_documents
from velocitune_core.data.texts import FileText, whole_text


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


def test_a_byte_order_mark_is_ignored_at_the_start_of_every_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\n\xef\xbb\xbf{"text": "two"}\n')
    assert outcomes(jsonl_rows(path, "text")) == [(1, "one"), (2, "two")]  # two files that were joined


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=8), compressed=st.booleans())
def test_any_text_survives_jsonl(tmp_path: Path, texts: list[str], compressed: bool) -> None:
    content = "".join(json.dumps({"body": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    path = tmp_path / ("a.jsonl.gz" if compressed else "a.jsonl")
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert outcomes(jsonl_rows(path, "body")) == list(enumerate(texts, start=1))


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
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


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_text_with_nul_is_a_row_that_names_its_byte(tmp_path: Path, name: str) -> None:
    """UTF-16 without its mark, and a file that a crash has padded, are text in UTF-8 full of NULs."""
    texts = ['{"text": "one"}\n{"text": "two"}\n', '[{"text": "one"}]']
    root, [plain] = tmp_path, [texts[name == "a.json"]]
    (root / name).write_bytes(plain.encode("utf-16-le"))
    kind = "text" if name == "a.txt" else "jsonl"
    with pytest.raises(SourceError, match=r"byte 1 is NUL, as in UTF-16 .* convert the file to UTF-8"):
        list(read_documents(Source(type=kind, path=name), root))
    (root / name).write_bytes(plain.encode() + bytes(16))
    with pytest.raises(SourceError, match=rf"byte {len(plain)} is NUL, .* where a file was padded"):
        list(read_documents(Source(type=kind, path=name), root))
    (root / "escaped.jsonl").write_text('{"text": "one\\u0000"}')
    assert [each.text for each in read_documents(Source(type="jsonl", path="escaped.jsonl"), root)] == ["one\0"]


def test_rows_of_a_stream_are_checked_one_by_one() -> None:
    stream = iter([{"text": "one"}, {"body": "two"}, {"text": b"three"}])
    assert outcomes(streamed_rows(stream, Source(type="datasets", path="team/web"))) == [
        (1, "one"),
        (2, "! no column 'text'; it has 'body': set text_field"),
        (3, "! field 'text' is bytes, not a string"),
    ]


def test_a_stream_that_breaks_off_is_named_with_its_row() -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield {"text": "one"}
        raise ConnectionError("reset by peer")

    with pytest.raises(SourceError, match=r"^team/web: row 2 cannot be read \(reset by peer\)"):
        outcomes(streamed_rows(rows(), Source(type="datasets", path="team/web")))


def test_a_path_without_a_folder_can_be_a_hub_id(tmp_path: Path) -> None:
    assert open_dataset_folder(Source(type="datasets", path="owner/data-set.v2"), tmp_path) is None


@pytest.mark.parametrize("path", ["name", "../name", "./name", "a/b/c", "/absolute", "name/"])
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


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    with pytest.raises(SourceError, match="2 columns are named 'text'; rename them"), open_parquet(path, "text"):
        pass


def test_zst_with_a_long_window_and_gz_with_zeros_after_it_are_read(tmp_path: Path) -> None:
    content = b'{"text": "one"}\n'
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # of unknown size: a whole window
    (tmp_path / "a.jsonl.ZST").write_bytes(stream.compress(content) + stream.flush())
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content) + bytes(512))
    for name in ("a.jsonl.ZST", "a.jsonl.gz"):
        assert outcomes(jsonl_rows(tmp_path / name, "text")) == [(1, "one")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=40).map(lambda found: found.replace(b"\0", b"\1"))
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map(str.encode),
    part=st.integers(1, 9),
)
def test_a_text_file_in_parts_is_the_text_or_names_the_byte(tmp_path: Path, content: bytes, part: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("velocitune_core.data.texts._PART_BYTES", part)
        patch.setattr("velocitune_core.data.readers.LONG_CHARACTERS", 3)
        [(_, text_of)] = text_rows(path, "text")
        try:
            expected = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            before = next(n for n in range(len(content), -1, -1) if decodable(content[:n]))
            line = content.count(b"\n", 0, before) + 1
            with pytest.raises(RowProblem, match=rf"byte {before} \(0x{content[before]:02x}\) is not UTF-8") as caught:
                text_of()
            assert caught.value.line == line
        else:
            text = text_of()
            assert isinstance(text, FileText) == (len(expected) > 3)
            assert whole_text(text) == expected


def decodable(content: bytes) -> bool:
    """Whether the bytes are a whole number of characters."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_parquet_rows_are_read_in_batches_of_bounded_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{number} " * 500 for number in range(100)]
    pq.write_table(pa.table({"other": texts, "text": texts}), tmp_path / "a.parquet", row_group_size=60)
    asked: list[int] = []
    monkeypatch.setattr("velocitune_core.data.readers._BYTES_AT_ONCE", 10_000)
    batches = pq.ParquetFile.iter_batches

    def counted(file: pq.ParquetFile, rows: int, **options: Any) -> Any:
        asked.append(rows)
        return batches(file, rows, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert [text_of() for _, text_of in parquet_rows(tmp_path / "a.parquet", "text")] == texts
    assert len(asked) == 2 and all(1 <= rows <= 10 for rows in asked)
