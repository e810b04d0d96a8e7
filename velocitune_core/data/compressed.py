"""Files of bytes that may be compressed; a truncated one is an error."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

COMPRESSIONS = (".gz", ".zst", ".zstd")
_LARGEST_WINDOW = 2**31  # bytes: what `zstd --long=31` writes
_READ_BYTES = 1 << 20
_FRAME_BYTES = 1 << 14  # decompressed at once, which may grow a thousandfold


@contextmanager
def open_stream(path: Path) -> Generator[BinaryIO]:
    """Open a file for reading, decompressed if its suffix, in upper or lower case, is one of COMPRESSIONS.

    Raises OSError or EOFError, also while reading, for a file that is corrupt or truncated.
    """
    suffix = path.suffix.lower()
    with path.open("rb", buffering=_READ_BYTES) as file:
        if suffix == ".gz":  # several members, and zeros after the last one, are read as gzip does
            with gzip.GzipFile(fileobj=file) as stream:
                yield io.BufferedReader(_GzipMembers(stream), _READ_BYTES)
        elif suffix in COMPRESSIONS:
            yield io.BufferedReader(_ZstdFrames(file), _READ_BYTES)
        else:
            yield file


class _GzipMembers(io.RawIOBase):
    """The content of a gzip file; damaged bytes are an OSError, as every other fault of a file is."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            return self._stream.readinto(buffer)
        except zlib.error as error:
            raise OSError(str(error)) from None


class _ZstdFrames(io.RawIOBase):
    """The content of all frames of a file; unlike zstandard's own reader, it refuses a truncated last frame."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._file = file
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        self._error = zstandard.ZstdError
        self._frame = self._decompressor.decompressobj()
        self._fed = False  # whether the present frame has begun
        self._input, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            self._input = self._input or self._file.read(_FRAME_BYTES)
            if not self._input:
                if self._fed:
                    raise EOFError("the last frame is cut off")
                return 0
            self._fed = True
            try:
                self._ready = memoryview(self._frame.decompress(self._input))
            except self._error as error:
                raise OSError(str(error)) from None
            self._input = b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame, self._fed = self._decompressor.decompressobj(), False
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
