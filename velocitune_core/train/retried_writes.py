"""Append to files on a disk that may be full: what cannot be written is kept and written later, in order."""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path


class RetriedWriter:
    """Appends bytes to a file descriptor; nothing is lost or written twice, whatever fails in between.

    `problem` is why bytes are kept, None if there are none.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._kept = descriptor, bytearray()
        self.problem: OSError | None = None

    def write(self, content: bytes = b"") -> None:
        """Write what is kept and then `content`, as far as the disk takes it."""
        self._kept += content
        self.problem = None
        try:
            while self._kept:
                del self._kept[: os.write(self._descriptor, self._kept)]  # of a line, it may take a part
        except OSError as error:
            self.problem = error


class RetriedText(io.TextIOBase):
    """A text stream over a `RetriedWriter`, in place of a standard stream that raises when the disk is full."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._writer = descriptor, RetriedWriter(descriptor)

    def write(self, text: str) -> int:
        self._writer.write(text.encode("utf-8", errors="backslashreplace"))
        return len(text)

    def flush(self) -> None:
        self._writer.write()

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True


def retry_standard_streams() -> None:
    """Replace standard output and error where they are files: a full disk under a log must not end the run."""
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            setattr(sys, name, RetriedText(descriptor))


def open_to_append(path: Path) -> int:
    """Return a file descriptor whose writes go to the end of the file; the folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
