"""Files that are whole or absent, whatever happens while they are made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from velocitune_core.files import replacing, write_text


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_text_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_text(path, "first")
    write_text(path, "zweite Größe")
    assert path.read_text(encoding="utf-8") == "zweite Größe"
    assert names(path.parent) == ["file.json"]


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="half way"), replacing(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_text_that_cannot_be_encoded_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\udc80")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for generation in ("first", "second"):
        with replacing(path) as temporary:
            (temporary / "inner").mkdir(parents=True)
            (temporary / "inner" / generation).write_text(generation)
    assert names(path / "inner") == ["second"]
    assert names(tmp_path) == ["model"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "weights").write_text("old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("new")
        raise KeyError
    assert (path / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_making_nothing_is_an_error_that_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


WRITER = """
import sys
from pathlib import Path
from velocitune_core.files import write_text
while True:
    for letter in "ab":
        write_text(Path(sys.argv[1]), letter * 3_000_000)
        print(flush=True)
"""


def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for lines in (1, 2, 3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        with writer:
            for _ in range(lines):
                writer.stdout.readline()
            writer.kill()
        content = path.read_text()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1
