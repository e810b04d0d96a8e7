"""What a full disk does not take is kept, and written once there is room: all of it, in order, once."""

from __future__ import annotations

import errno
import os
import pty
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.train.retried_writes import RetriedWriter, open_to_append, retried_text


class Disk:
    """Takes as many bytes as there is room for, then none. (A real full disk: tests/faults/test_disk_full.py.)"""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.room, self.content = 0, b""
        patch.setattr(os, "write", self.write)

    def write(self, _: int, content: bytes) -> int:
        taken = bytes(content[: self.room])
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.content, self.room = self.content + taken, self.room - len(taken)
        return len(taken)


@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 30)), max_size=10))
def test_everything_arrives_in_order_and_once(writes: list[tuple[bytes, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        disk, writer, passed = Disk(patch), RetriedWriter(-1), b""
        for content, more_room in writes:
            disk.room += more_room
            writer.write(content)
            passed += content
            assert passed.startswith(disk.content)
            assert (writer.problem is None) == (disk.content == passed)
        disk.room = 10**6
        writer.write()
        assert (disk.content, writer.problem) == (passed, None)


def test_text_goes_to_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "log.txt"
    for line in ("loss 3.250\n", "Größe 3 ≥ 2\n"):
        stream = retried_text(open_to_append(path))
        print(line, end="", file=stream, flush=True)
        assert not stream.isatty() and stream.writable()
        os.close(stream.fileno())
    assert path.read_text(encoding="utf-8") == "loss 3.250\nGröße 3 ≥ 2\n"


def test_two_threads_may_write_at_once(tmp_path: Path) -> None:
    """As the training loop and the thread that writes checkpoints do; `os.write` lets the other thread run."""
    path = tmp_path / "log.txt"
    stream, lines, errors = retried_text(open_to_append(path)), 3000, []

    def write(name: str) -> None:
        try:
            for number in range(lines):
                stream.write(f"{name}{number}\n")
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        os.close(stream.fileno())
    assert not errors
    assert sorted(path.read_text().splitlines()) == sorted(
        f"{name}{number}" for name in "ab" for number in range(lines)
    )


def test_the_stream_is_what_libraries_expect_of_a_standard_stream(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    stream = retried_text(open_to_append(path))
    stream.reconfigure(line_buffering=True)
    stream.buffer.write(b"bytes\n")
    print("text \udcff", file=stream)
    stream.writelines(["a", "b\n"])
    assert (stream.encoding, stream.errors) == ("utf-8", "backslashreplace")
    descriptor = stream.fileno()
    stream.close()
    os.close(descriptor)  # closing the stream left it open
    assert path.read_text() == "bytes\ntext \\udcff\nab\n"


def test_what_libraries_log_follows_the_standard_stream(tmp_path: Path) -> None:
    """In a forked run they were imported, and took the stream that was there, before it is replaced."""
    code = """if True:
        import logging, sys
        from velocitune_core.train.retried_writes import retry_standard_streams
        library = logging.getLogger("library")
        library.addHandler(logging.StreamHandler())
        retry_standard_streams()
        library.warning("deprecated")
        assert library.handlers[0].stream is sys.stderr
    """
    with (tmp_path / "log.txt").open("wb") as log:
        subprocess.run([sys.executable, "-c", code], stderr=log, check=True, timeout=60)
    assert (tmp_path / "log.txt").read_text() == "deprecated\n"


def test_a_reader_that_has_ended_does_not_end_the_writer() -> None:
    code = """if True:
        import sys
        from velocitune_core.train.retried_writes import retry_standard_streams
        retry_standard_streams()
        sys.stdin.read()  # until the reader is gone
        for number in range(10_000):
            print("a line of the log", number, flush=True)
        open(sys.argv[1], "w").write("done")
    """
    with tempfile.TemporaryDirectory() as folder:
        done = Path(folder) / "done"
        writer = subprocess.Popen(
            [sys.executable, "-c", code, str(done)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdout.close()
        writer.stdin.close()
        assert writer.wait(60) == 0 and done.read_text() == "done"


def test_a_terminal_is_still_one() -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "wb"), os.fdopen(controller, "rb"):
        assert retried_text(terminal).isatty()
