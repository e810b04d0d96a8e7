"""The text of a document: a string, or a long file that is read in parts, so that memory does not grow with it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from velocitune_core.data.compressed import open_stream

LONG_CHARACTERS = 1 << 20  # a longer document is processed in parts
BYTE_ORDER_MARK = "\ufeff"
_PART_BYTES = 1 << 18


class UndecodableError(ValueError):
    """Bytes that are not text in UTF-8, with the line that they are in."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class FileText:
    """A long text file that was found to be UTF-8."""

    path: Path


Text = str | FileText


def is_long(text: Text) -> bool:
    """Return whether a text is to be processed in parts."""
    return isinstance(text, FileText) or len(text) > LONG_CHARACTERS


def text_parts(text: Text) -> Iterator[str]:
    """Yield a text in short parts."""
    if isinstance(text, FileText):
        yield from decoded_parts(text.path)
    else:
        yield from (text[at : at + _PART_BYTES] for at in range(0, len(text), _PART_BYTES))


def whole_text(text: Text) -> str:
    """Return a text as a string."""
    return text if isinstance(text, str) else "".join(decoded_parts(text.path))


def decoded_parts(path: Path) -> Iterator[str]:
    """Decode a file in parts, without a byte order mark at its start.

    Raises UndecodableError, for NULs too, OSError and EOFError.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    before, line, started = 0, 1, False  # bytes, lines, whether a character was decoded
    with open_stream(path) as stream:
        while True:
            content = stream.read(_PART_BYTES)
            pending = decoder.getstate()[0]
            try:
                part = decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                raise undecodable(error, before - len(pending), line) from None
            if (nul := content.find(b"\0")) >= 0:
                raise UndecodableError(nul_problem(before + nul), line + content.count(b"\n", 0, nul))
            if part:
                yield part if started else part.removeprefix(BYTE_ORDER_MARK)
                started = True
            if not content:
                return
            before += len(content)
            line += content.count(b"\n")


def nul_problem(byte: int) -> str:
    """Return what is wrong with text that has a NUL at a byte of its file: UTF-16 without its mark is full of them."""
    return f"byte {byte} is NUL, as in UTF-16 or where a file was padded; convert the file to UTF-8, or remove them"


def undecodable(error: UnicodeDecodeError, offset: int = 0, line: int = 1) -> UndecodableError:
    """Return an error that names the byte; the bytes that were decoded begin at `offset` of the file, in `line`."""
    byte = f"byte {offset + error.start} (0x{error.object[error.start]:02x})"
    return UndecodableError(
        f"{byte} is not UTF-8; convert the file to UTF-8", line + error.object.count(b"\n", 0, error.start)
    )
