"""Append to files on a disk that may be full: what cannot be written is kept and written later, in order."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


_NOBODY_READS = (errno.EPIPE, errno.EIO)


class RetriedWriter:
    """Appends bytes to a file descriptor; nothing is lost or written twice, whatever fails in between.

    Only what a pipe without a reader or a closed terminal refuses is dropped: they take nothing more. Threads may share
    one. `problem` is why bytes are kept, None if there are none.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._kept = descriptor, b""
        self._lock = threading.Lock()
        self.problem: OSError | None = None

    def write(self, content: bytes = b"") -> None:
        """Write what is kept and then `content`, as far as the disk takes it."""
        with self._lock:
            self._kept += content
            self.problem = None
            try:
                while self._kept:
                    self._kept = self._kept[os.write(self._descriptor, self._kept) :]  # of a line, it may take a part
            except OSError as error:
                if error.errno in _NOBODY_READS and not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                    self._kept = b""
                else:
                    self.problem = error


class _Raw(io.RawIOBase):
    """A `RetriedWriter` as the stream of bytes under a stream of text. Closing it leaves the descriptor open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._writer = descriptor, RetriedWriter(descriptor)

    def write(self, content: ReadableBuffer, /) -> int:
        whole = bytes(content)
        self._writer.write(whole)
        return len(whole)

    def flush(self) -> None:
        super().flush()  # raises ValueError if it is closed
        self._writer.write()

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True


def retried_text(descriptor: int) -> io.TextIOWrapper:
    """Return a text stream that keeps what a full disk does not take, in place of a standard stream, which raises."""
    raw = _Raw(descriptor)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[arg-type]


def retry_standard_streams() -> None:
    """Replace standard output and error: a full disk under a log, or a reader that has ended, must not end the run."""
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        before, stream = getattr(sys, name), retried_text(descriptor)
        setattr(sys, name, stream)
        _redirect_handlers(before, stream)


def _redirect_handlers(before: TextIO, stream: TextIO) -> None:
    """Make loggers of libraries that were imported earlier write to a stream in place of the one they took then."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):  # a name without a logger has none
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                handler.setStream(stream)


def open_to_append(path: Path) -> int:
    """Return a file descriptor whose writes go to the end of the file; the folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
