"""Atomic writes under failures and kills, and hashes of files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from velocitune_core import files
from velocitune_core.files import file_sha256, replacing, write_text


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
    with pytest.raises(RuntimeError, match="interrupted"), replacing(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError("interrupted")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_text_that_cannot_be_encoded_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\udc80")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With renameat2 where the file system supports it, and as on systems without it."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("way")
def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for generation in ("first", "second"):
        with replacing(path) as temporary:
            (temporary / "inner").mkdir(parents=True)
            (temporary / "inner" / generation).write_text(generation)
    assert names(path / "inner") == ["second"]
    assert names(tmp_path) == ["model"]


def test_a_folder_replaces_a_link_to_a_folder_and_leaves_its_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "weights").write_text("old")
    (tmp_path / "model").symlink_to(target)
    with replacing(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("new")
    assert not (tmp_path / "model").is_symlink()
    assert ((tmp_path / "model/weights").read_text(), (target / "weights").read_text()) == ("new", "old")
    assert names(tmp_path) == ["model", "target"]


@pytest.mark.usefixtures("way")
def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").write_text("kept")
    (tmp_path / "link").symlink_to("full")
    for name in ("full", "link"):
        with pytest.raises(FileExistsError, match=f"{name} is a folder, which no file replaces; give the name of"):
            write_text(tmp_path / name, "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "full/precious").read_text() == "kept"
    assert names(tmp_path) == ["full", "link"]


def test_a_file_replaces_nothing_that_is_no_file_and_a_folder_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="pipe is a device, a pipe or a socket"):
        write_text(tmp_path / "pipe", "new")
    (tmp_path / "file").write_text("old")
    with pytest.raises(NotADirectoryError), replacing(tmp_path / "file") as temporary:
        temporary.mkdir()
    assert (tmp_path / "file").read_text() == "old" and (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["file", "pipe"]


def test_what_is_in_the_way_of_a_file_or_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert files.obstacle_to_folder(Path("file/below/deep")) == "file is no folder, so that nothing can be in it; " + (
        "give another place"
    )
    assert files.obstacle_to_file(Path("file/below")) == files.obstacle_to_folder(Path("file"))
    Path("link").symlink_to("nowhere")
    assert files.obstacle_to_files_in(Path("link/below")) == "link is no folder, so that nothing can be in it; " + (
        "give another place"
    )
    too_long = Path("x" * 300)
    assert files.obstacle_to_files_in(too_long) == f"{too_long} cannot be written: File name too long; " + (
        "give another place"
    )
    free = ["file", "new", "new/below", "x" * 300]
    assert [files.obstacle_to_file(Path(name)) for name in free] == [None] * 4
    assert [files.obstacle_to_folder(Path(name)) for name in (".", "new", "new/below")] == [None] * 3


def test_whether_a_folder_takes_files_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in ("there", "there/new/below", "."):
        files.check_writable(tmp_path / folder)
    assert names(tmp_path) == ["there"] and not names(tmp_path / "there")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        files.check_writable(tmp_path / "file/below")


def test_processes_that_try_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from velocitune_core.files import check_writable\n"
    code += "for _ in range(3000): check_writable(Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "new/below")]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder that takes no files from anybody")
def test_a_folder_that_takes_no_files_is_found_by_trying() -> None:
    for folder in ("/proc", "/proc/new/below"):
        with pytest.raises(OSError, match=r"No such file or directory|denied|Read-only"):
            files.check_writable(Path(folder))


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


@pytest.fixture
def unprivileged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The rights of a user, whom permissions stop, in the current folder."""
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:
        tmp_path.chmod(0o777)
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.usefixtures("unprivileged", "way")
def test_an_old_folder_that_cannot_be_removed_stays_and_the_new_one_is_in_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Path("model")
    for generation in ("first", "second", "third"):
        with replacing(path) as temporary:
            (temporary / "locked").mkdir(parents=True)
            (temporary / "locked" / generation).write_text(generation)
            (temporary / "free").touch()
            (temporary / "locked").chmod(0o555)
        assert names(path) == ["free", "locked"] and names(path / "locked") == [generation]
    left = sorted(Path().glob(".model.*"))
    assert [names(each) for each in left] == [["locked"], ["locked"]]  # the rest of them is gone
    said = [each.getMessage() for each in caplog.records]
    for each in left:
        assert any(f"{each} is of no use any more, but stays: " in line and "by hand" in line for line in said)
        (each / "locked").chmod(0o755)


@pytest.mark.usefixtures("unprivileged")
def test_a_file_that_its_owner_may_not_write_is_replaced_with_its_permissions() -> None:
    for text in ("first", "second"):
        write_text(Path("file"), text, mode=0o444)
        assert Path("file").read_text() == text and Path("file").stat().st_mode & 0o777 == 0o444


@pytest.mark.usefixtures("unprivileged")
def test_what_a_block_raises_is_not_hidden_by_a_temporary_that_cannot_be_removed() -> None:
    with pytest.raises(KeyError), replacing(Path("model")) as temporary:
        (temporary / "locked/inner").mkdir(parents=True)
        (temporary / "locked").chmod(0o555)
        raise KeyError
    assert not Path("model").exists()


def test_a_folder_whose_replacement_fails_halfway_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two renames of a system that cannot exchange names: a quota, a network file system."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("old")

    def refused(path: Path, target: Path) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError, match="quota"), replacing(tmp_path / "model") as temporary:
        temporary.mkdir()
    assert (tmp_path / "model/weights").read_text() == "old" and names(tmp_path) == ["model"]


def test_a_block_that_creates_nothing_raises_and_keeps_the_old_file(tmp_path: Path) -> None:
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


FOLDER_WRITER = """
import sys
from pathlib import Path
from velocitune_core.files import replacing
while True:
    with replacing(Path(sys.argv[1])) as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("content")
    print(flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two names")
def test_a_folder_is_never_absent_while_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with subprocess.Popen([sys.executable, "-c", FOLDER_WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        end = time.monotonic() + 1.0
        absent = 0
        while time.monotonic() < end:
            absent += not (path / "file").is_file()
        writer.kill()
    assert absent == 0
    assert (path / "file").read_text() == "content"


def test_the_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == expected
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "missing")


def test_the_only_file_of_a_pattern(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"no file a-\*"):
        files.only_file(tmp_path, "a-*")
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-1").touch()
    assert files.only_file(tmp_path, "a-*") == tmp_path / "a-1"
    (tmp_path / "a-2").touch()
    with pytest.raises(LookupError, match="a-1, a-2: keep one of them"):
        files.only_file(tmp_path, "a-*")


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_private_files_of_libraries_get_the_permissions_of_the_umask(tmp_path: Path, umask: int, expected: int) -> None:
    """safetensors writes files that nobody else may read; those that somebody has protected stay so."""
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "model") as temporary:
            (temporary / "shards").mkdir(parents=True)
            save_file({"weight": np.zeros(2)}, temporary / "shards" / "model.safetensors")
            assert (temporary / "shards" / "model.safetensors").stat().st_mode & 0o777 == 0o600, "or this is needless"
            (temporary / "protected").touch(0o400)
    finally:
        os.umask(before)
    assert (tmp_path / "model/shards/model.safetensors").stat().st_mode & 0o777 == expected
    assert (tmp_path / "model/protected").stat().st_mode & 0o777 == 0o400
