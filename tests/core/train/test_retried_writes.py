"""What a full disk does not take is kept, and written once there is room: all of it, in order, once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.train.retried_writes import RetriedText, RetriedWriter, open_to_append


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
        stream = RetriedText(open_to_append(path))
        print(line, end="", file=stream, flush=True)
        assert not stream.isatty() and stream.writable()
        os.close(stream.fileno())
    assert path.read_text(encoding="utf-8") == "loss 3.250\nGröße 3 ≥ 2\n"
