"""Real files of every type, valid and corrupt."""

import gzip
import json
import shutil
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from velocitune_core.config import Source
from velocitune_core.data.sources import Document, MalformedRows, SourceError, check_source, read_documents

ROWS = [{"text": "first"}, {"text": "zweite Zeile: ä"}, {"text": "third", "other": 1}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def read(root: Path, path: str, kind: str = "jsonl", **fields: str) -> list[Document]:
    return list(read_documents(Source(type=kind, path=path, **fields), root))


def texts(*arguments, **fields) -> list[str]:
    return [document.text for document in read(*arguments, **fields)]


def failure(root: Path, path: str, kind: str = "jsonl", **fields: str) -> str:
    with pytest.raises(SourceError) as caught:
        read(root, path, kind, **fields)
    return str(caught.value)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "code.jsonl").write_bytes(LINES)
    return tmp_path


def test_jsonl_with_origins(root):
    assert read(root, "code.jsonl") == [
        Document("first", "code.jsonl:1"),
        Document("zweite Zeile: ä", "code.jsonl:2"),
        Document("third", "code.jsonl:3"),
    ]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed_jsonl_of_several_members(tmp_path, suffix):
    compress = gzip.compress if suffix == "gz" else zstandard.compress
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(compress(LINES) + compress(LINES))
    assert texts(tmp_path, f"a.jsonl.{suffix}") == [row["text"] for row in ROWS] * 2


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_truncated_or_corrupt_file_is_named(tmp_path, suffix):
    compress = gzip.compress if suffix == "gz" else zstandard.compress
    path = tmp_path / f"a.jsonl.{suffix}"
    content = compress(LINES * 1000)
    path.write_bytes(content[: len(content) - 12])
    assert f"{path}: cannot be read" in failure(tmp_path, path.name)
    path.write_bytes(b"nothing compressed")
    assert f"{path}: cannot be read" in failure(tmp_path, path.name)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.txt.gz", "a.jsonl.zst", "a.json.zst", "a.txt.zst"])
@pytest.mark.parametrize("at", [0.02, 0.5])
def test_a_damaged_file_is_named_wherever_the_damage_is(tmp_path, name, at):
    """Bytes inside the compressed stream, where zlib has an error of its own kind."""
    compress = gzip.compress if name.endswith("gz") else zstandard.ZstdCompressor(write_checksum=True).compress
    rows = [json.dumps({"text": sha256(bytes([number % 256])).hexdigest() * number}) for number in range(300)]
    plain = "\n".join(rows) if ".jsonl" in name or ".txt" in name else f"[{','.join(rows)}]"
    content = bytearray(compress(plain.encode()))
    where = int(at * len(content))
    content[where : where + 64] = b"\xff" * 64
    (tmp_path / name).write_bytes(content)
    kind = "text" if ".txt" in name else "jsonl"
    source = Source(type=kind, path=name)
    problems = check_source(source, tmp_path) or [failure(tmp_path, name, kind)]
    assert f"{name}: cannot be read" in problems[0] and "is it corrupt or truncated?" in problems[0]


def test_folders_and_globs_are_read_in_order_of_names_without_hidden_files(root):
    for name in ("z/b.jsonl", "z/a.jsonl", "z/.c.jsonl", "z/.git/d.jsonl", "z/readme.md"):
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(json.dumps({"text": name}) + "\n")
    assert texts(root, "z") == ["z/a.jsonl", "z/b.jsonl"]
    assert texts(root, "z/*.jsonl") == ["z/a.jsonl", "z/b.jsonl"]
    assert texts(root, str(root / "**/[ab].jsonl")) == ["z/a.jsonl", "z/b.jsonl"]
    assert [document.origin for document in read(root, "z")] == ["z/a.jsonl:1", "z/b.jsonl:1"]


def test_blank_lines_and_a_byte_order_mark_are_ignored(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + LINES + b"\n  \n" + LINES)
    assert [document.origin for document in read(tmp_path, "a.jsonl")][-1] == "a.jsonl:8"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text": "cut off', "code.jsonl:4: not JSON: Unterminated string starting at column 10"),
        (b'["text"]', "code.jsonl:4: a JSON list, not an object"),
        (b'{"body": "x", "id": 3}', "code.jsonl:4: no field 'text'; it has 'body', 'id': set text_field"),
        (b'{"text": null}', "code.jsonl:4: field 'text' is null, not a string"),
        (b'{"text": 3}', "code.jsonl:4: field 'text' is int, not a string"),
        (b'{"text": "a \xff"}', f"code.jsonl:4: byte {len(LINES) + 12} (0xff) is not UTF-8"),
        (b'{"text": "\\ud800"}', "code.jsonl:4: field 'text' has a lone surrogate at character 0"),
        (b"[" * 100_000, "code.jsonl:4: not JSON that can be read"),
    ],
)
def test_a_malformed_line_is_named(root, line, problem):
    (root / "code.jsonl").write_bytes(LINES + line + b"\n" + LINES)
    assert problem in failure(root, "code.jsonl")


def test_ten_problems_are_shown_and_all_are_counted(root):
    (root / "code.jsonl").write_bytes(LINES + b"{\n" * 30 + LINES + b"3\n")
    message = failure(root, "code.jsonl")
    assert message.count("not JSON") == 10
    assert message.endswith("31 malformed rows in all, data.max_malformed_rows allows 0: fix the rows, or raise it")


def test_a_malformed_row_ends_the_documents(root):
    (root / "code.jsonl").write_bytes(LINES + b"{\n" + LINES)
    documents = read_documents(Source(type="jsonl", path="code.jsonl"), root)
    assert len(list(islice(documents, 3))) == 3
    with pytest.raises(SourceError, match=r"code\.jsonl:4"):
        next(documents)


def test_as_many_malformed_rows_as_allowed_are_skipped_and_counted(root):
    (root / "code.jsonl").write_bytes(b"3\n" + LINES + b"{\n" + LINES)
    malformed = MalformedRows(allowed=2)
    documents = list(read_documents(Source(type="jsonl", path="code.jsonl"), root, malformed))
    assert [document.text for document in documents] == [row["text"] for row in ROWS] * 2
    assert malformed.count == 2
    assert [shown.partition(": ")[0] for shown in malformed.shown] == [f"{root}/code.jsonl:{n}" for n in (1, 5)]


def test_one_more_than_allowed_is_an_error_that_reports_all_files(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES + b"3\n")
    (tmp_path / "b.jsonl").write_bytes(LINES + b"{\n" + LINES)
    (tmp_path / "c.jsonl").write_bytes(LINES + b"[\n" * 12)
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(LINES * 1000)[:-12])
    malformed = MalformedRows(allowed=1)
    read_so_far = []
    with pytest.raises(SourceError) as caught:
        read_so_far.extend(read_documents(Source(type="jsonl", path="."), tmp_path, malformed))
    message = str(caught.value)
    assert malformed.count == 14
    assert message.count("not JSON") + message.count("a JSON int") == 10
    assert "b.jsonl:4" in message and "d.jsonl.gz: cannot be read" in message
    assert message.endswith("14 malformed rows in all, data.max_malformed_rows allows 1: fix the rows, or raise it")


def test_a_text_file_that_is_not_utf_8_is_one_malformed_row(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ok")
    (tmp_path / "b.bin").write_bytes(b"line\n\xff")
    (tmp_path / "c.bin").write_bytes(b"\xfe")
    message = failure(tmp_path, ".", "text")
    assert "b.bin:2: byte 5 (0xff)" in message and "c.bin:1: byte 0 (0xfe)" in message
    malformed = MalformedRows(allowed=2)
    assert [each.text for each in read_documents(Source(type="text", path="."), tmp_path, malformed)] == ["ok"]


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": [f"row {i}" for i in range(3000)], "n": range(3000)}), path, row_group_size=700)
    documents = read(tmp_path, "a.parquet", "parquet", text_field="body")
    assert [document.text for document in documents] == [f"row {i}" for i in range(3000)]
    assert documents[1700].origin == "a.parquet:1701"
    assert "no column 'text'; it has 'body', 'n'" in failure(tmp_path, "a.parquet", "parquet")
    assert "column 'n' is int64, not string" in failure(tmp_path, "a.parquet", "parquet", text_field="n")
    assert check_source(Source(type="parquet", path="*.parquet"), tmp_path) == [
        f"{path}: no column 'text'; it has 'body', 'n': set text_field"
    ]


def test_corrupt_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xffx"))
    pq.write_table(pa.table({"text": broken}), path)
    assert "a.parquet:2: column 'text': byte 0 (0xff) is not UTF-8" in failure(tmp_path, "a.parquet", "parquet")
    pq.write_table(pa.table({"text": ["a", None]}), path)
    assert "a.parquet:2: field 'text' is null" in failure(tmp_path, "a.parquet", "parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path}: cannot be read" in failure(tmp_path, "a.parquet", "parquet")
    assert "cannot be read" in check_source(Source(type="parquet", path="a.parquet"), tmp_path)[0]


def test_text_files(tmp_path):
    (tmp_path / "man").mkdir()
    (tmp_path / "man/b.txt").write_text("B\nb", encoding="utf-8")
    (tmp_path / "man/a.1").write_text("A ä", encoding="utf-8")
    (tmp_path / "man/.gitignore").write_text("x")
    assert read(tmp_path, "man", "text") == [Document("A ä", "man/a.1"), Document("B\nb", "man/b.txt")]
    assert texts(tmp_path, "man/*.txt", "text") == ["B\nb"]
    (tmp_path / "man/c.bin").write_bytes(b"ok\nnot \xfe")
    assert "c.bin:2: byte 7 (0xfe) is not UTF-8" in failure(tmp_path, "man", "text")


def test_datasets_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["one", "two", None], "n": [1, 2, 3]})
    data.select(range(2)).save_to_disk(tmp_path / "plain")
    datasets.DatasetDict({"train": data.select(range(2)), "odd": data}).save_to_disk(tmp_path / "split")
    assert read(tmp_path, "plain", "datasets") == [Document("one", "plain:1"), Document("two", "plain:2")]
    assert texts(tmp_path, "split", "datasets") == ["one", "two"]
    assert "split:3: field 'text' is null" in failure(tmp_path, "split", "datasets", split="odd")
    assert "no split 'test'; it has 'train', 'odd'" in failure(tmp_path, "split", "datasets", split="test")
    assert "no column 'body'; it has 'text', 'n'" in failure(tmp_path, "plain", "datasets", text_field="body")
    assert check_source(Source(type="datasets", path="plain"), tmp_path) == []
    assert "not a hub id" in check_source(Source(type="datasets", path="a/b/c"), tmp_path)[0]
    (tmp_path / "empty").mkdir()
    assert "empty: is empty" in check_source(Source(type="datasets", path="empty"), tmp_path)[0]
    (tmp_path / "empty/data.txt").touch()
    assert "not a folder that `save_to_disk` wrote" in check_source(Source(type="datasets", path="empty"), tmp_path)[0]


def test_rows_of_a_datasets_folder_that_are_not_utf_8_are_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    bytes_ = pa.array([b"one", b"\xff\xfe", b"three"], pa.binary())
    bad = pa.StringArray.from_buffers(3, bytes_.buffers()[1], bytes_.buffers()[2])
    datasets.Dataset(pa.table({"text": bad})).save_to_disk(tmp_path / "set")
    assert "set:2: column 'text': byte 0 (0xff) is not UTF-8" in failure(tmp_path, "set", "datasets")
    malformed = MalformedRows(allowed=1)
    found = read_documents(Source(type="datasets", path="set"), tmp_path, malformed)
    assert [each.text for each in found] == ["one", "three"] and malformed.count == 1


@pytest.mark.parametrize("column", [[["a"], ["b"]], [b"a", b"b"], [1, 2]], ids=["list", "binary", "int"])
def test_a_column_of_a_datasets_folder_that_holds_no_strings_is_refused_unread(tmp_path, column):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": column}).save_to_disk(tmp_path / "set")
    [problem] = check_source(Source(type="datasets", path="set"), tmp_path)
    assert "column 'text' is" in problem and "not string: set text_field" in problem


def test_a_datasets_folder_needs_no_other_split_and_its_damage_is_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": [f"text {number}" for number in range(3000)]})
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "set")
    shutil.rmtree(tmp_path / "set/test")
    assert len(texts(tmp_path, "set", "datasets")) == 3000
    [arrow] = (tmp_path / "set/train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:-5000])
    assert "set/train: not a folder that `save_to_disk` wrote" in failure(tmp_path, "set", "datasets")


def test_a_saved_format_of_a_data_set_changes_no_text(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["one", "two"], "n": [1, 2]})
    data.set_format("numpy", columns=["n"])
    data.save_to_disk(tmp_path / "plain")
    assert texts(tmp_path, "plain", "datasets") == ["one", "two"]


@pytest.mark.parametrize(
    ("kind", "path", "problem"),
    [
        ("jsonl", "none.jsonl", "none.jsonl: no such file or folder"),
        ("jsonl", "*.jsonl.zst", "*.jsonl.zst: no file matches"),
        ("jsonl", "empty", "empty: is empty"),
        ("jsonl", "notes", "notes: no .jsonl or .ndjson or .json (.gz, .zst, .zstd) file in this folder"),
        ("jsonl", "notes.csv", "notes.csv: not a .jsonl or .ndjson or .json (.gz, .zst, .zstd) file"),
        ("jsonl", "value.json", "value.json: one JSON value over several lines; write one object per line"),
        ("jsonl", "gone.jsonl", "gone.jsonl: a link to nowhere, which does not exist"),
        ("parquet", "code.jsonl", "code.jsonl: not a .parquet file"),
        ("text", "empty", "empty: is empty"),
    ],
)
def test_problems_found_before_reading(root, kind, path, problem):
    (root / "empty").mkdir()
    (root / "notes").mkdir()
    for name in ("notes.csv", "notes/a.csv"):
        (root / name).write_text("x")
    (root / "value.json").write_text('{\n"text": "a"}')
    (root / "gone.jsonl").symlink_to("nowhere")
    problems = check_source(Source(type=kind, path=path), root)
    assert len(problems) == 1
    assert problem in problems[0]
    assert problem in failure(root, path, kind)


def test_a_valid_source_has_no_problems(root):
    assert check_source(Source(type="jsonl", path="code.jsonl"), root) == []
