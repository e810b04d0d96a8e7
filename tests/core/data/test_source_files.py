"""Which files of a folder are read, and that all others are named."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard

from velocitune_core.config import Source
from velocitune_core.data.readers import SourceError
from velocitune_core.data.source_files import find_files
from velocitune_core.data.sources import check_source, left_out, read_documents, unwatched_files


def line(text: str) -> bytes:
    return json.dumps({"text": text}).encode() + b"\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of text, `root/d`, with all that is read of it and all that is not, and a folder beside `root`."""
    content = {
        "root/d/a.jsonl": line("a"),
        "root/d/b.JSONL": line("b"),
        "root/d/c.json.gz": gzip.compress(line("c")),
        "root/d/d.ndjson": line("d"),
        "root/d/e.Json.Zstd": zstandard.compress(line("e")),
        "root/d/f.jsonl.zst": zstandard.compress(line("f")),
        "root/d/array.json": b'[{"text": "0"}, {"text": "1"}]',
        "root/d/numbers.json": b"[1, 2]",
        "root/d/indented.json": b'{\n "text": "x"\n}\n',
        "root/d/readme.md": b"x",
        "root/d/.hidden.jsonl": line("x"),
        "root/d/.git/x.jsonl": line("x"),
        "root/d/.gitignore": b"",
        "elsewhere/g.jsonl": line("g"),
    }
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "root/d/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/d/loop").symlink_to(tmp_path / "root")
    (tmp_path / "root/d/gone.jsonl").symlink_to("nowhere")
    return tmp_path / "root"


def test_every_file_of_a_folder_is_read_or_named(root: Path) -> None:
    source = Source(type="jsonl", path="d")
    assert [document.text for document in read_documents(source, root)] == list("a01bcdefg")
    reasons = dict(each.removeprefix(f"{root}/d/").split(": ", 1) for each in left_out(source, root))
    value = "one JSON value over several lines; write one object per line (jq -c), or an array of objects"
    no_texts = "a JSON array that does not begin with an object with a field 'text'"
    assert reasons == {
        ".git": "a hidden folder",
        ".hidden.jsonl": "hidden",
        "numbers.json": no_texts,
        "indented.json": value,
        "gone.jsonl": "a link to nowhere, which does not exist",
        "loop": "a link to a folder that it lies in",
        "readme.md": "not a .jsonl or .ndjson or .json (.gz, .zst, .zstd) file",
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"license": "MIT"}\n', ["one JSON object, without a field 'text'"]),  # facts about the data, or package.json
        (line("x"), []),
        (b'{"id": 1}\n' + line("x"), []),  # a malformed row, which is counted
        (b"", ["empty"]),
        (b"[" * 100_000, ["a JSON array that does not begin with an object with a field 'text'"]),
        (b"[", ["a JSON array that does not begin with an object with a field 'text'"]),
        (b" []", ["a JSON array that does not begin with an object with a field 'text'"]),
        (
            b'{"a":' * 100_000,
            ["one JSON value over several lines; write one object per line (jq -c), or an array of objects"],
        ),
    ],
)
def test_one_object_that_is_no_text_is_left_out_of_a_folder(tmp_path: Path, content: bytes, reason: list[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(line("a"))
    (tmp_path / "b.json").write_bytes(content)
    found = find_files(Source(type="jsonl", path="."), tmp_path)
    assert [each.partition(": ")[2] for each in found.left_out] == reason and found.problems == []


@pytest.mark.parametrize(("kind", "name"), [("text", "b.txt"), ("jsonl", "b.jsonl"), ("jsonl", "b.json")])
def test_an_empty_file_is_named_beside_others_and_refused_alone(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / f"a{Path(name).suffix}").write_bytes(line("a"))
    (tmp_path / name).touch()
    for path in (".", "*.*"):
        found = find_files(Source(type=kind, path=path), tmp_path)
        assert (len(found.files), found.left_out, found.problems) == (1, [f"{tmp_path / name}: empty"], [])
    (problem,) = check_source(Source(type=kind, path=name), tmp_path)
    assert problem == f"{tmp_path / name}: empty; put text there, or name another file"
    (tmp_path / f"a{Path(name).suffix}").unlink()
    (problem,) = check_source(Source(type=kind, path="."), tmp_path)
    assert problem.endswith(f" file in this folder\n{tmp_path / name}: empty")


def test_no_more_than_the_start_of_a_long_line_is_read(tmp_path: Path) -> None:
    with (tmp_path / "array.json").open("wb") as file:
        file.write(b'[{"text": "')
        file.truncate(2**30)
    tracemalloc.start()
    found = find_files(Source(type="jsonl", path="."), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.problems, found.left_out, len(found.files)) == ([], [], 1) and peak < 2**27
    with pytest.raises(SourceError, match=r"array\.json: byte 11 is NUL"):
        list(read_documents(Source(type="jsonl", path="array.json"), tmp_path))


def test_a_folder_that_may_not_be_read_is_a_problem(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal of the file system is put in its place."""
    (root / "d/closed").mkdir()
    scanned = os.scandir

    def refuse(folder: Path) -> Any:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scanned(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    problem = f"{root}/d/closed: cannot be read (Permission denied); allow it, or move the folder away"
    assert check_source(Source(type="jsonl", path="d"), root) == [problem]


def test_files_that_dvc_does_not_watch(root: Path) -> None:
    def unwatched(path: str, kind: str = "jsonl") -> list[str]:
        return [Path(file).name for file, *_ in unwatched_files(Source(type=kind, path=path), root)]

    assert unwatched("d") == ["g.jsonl"]  # behind a linked folder
    assert unwatched("d/a.jsonl") == []
    assert unwatched("../elsewhere") == unwatched(str(root.parent / "elsewhere")) == ["g.jsonl"]
    assert unwatched("d/linked", "datasets") == ["g.jsonl"]
    assert unwatched("org/name", "datasets") == []  # on the hub


def test_other_splits_of_a_data_set_are_named(root: Path) -> None:
    (root / "d/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert left_out(Source(type="datasets", path="d"), root) == [f"{root}/d: split 'test', as `split` is 'train'"]


def test_a_file_name_that_is_not_utf_8_is_read(root: Path) -> None:
    (root / "odd").mkdir()
    Path(str(root / "odd/\udcff.jsonl")).write_bytes(line("odd"))
    source = Source(type="jsonl", path="odd")
    assert [document.text for document in read_documents(source, root)] == ["odd"]
    assert find_files(source, root).left_out == []
