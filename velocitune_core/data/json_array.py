"""The elements of a JSON array, decoded one after another: memory holds one of them and a part of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

_BLANKS = re.compile(r"[ \t\n\r]*")
_END_OF_NUMBER = 4  # characters, such as "e-", that are no part of it before a digit follows
_LONGEST_TOKEN = 12  # of JSON that an end of the text can cut, apart from strings: an escaped pair of surrogates


class ArrayError(ValueError):
    """Text that is no JSON array; the message says what and at which character."""


def array_elements(parts: Iterable[str]) -> Iterator[Any]:
    """Yield the elements of a JSON array whose text comes in parts.

    Raises ArrayError where the text stops being one; the elements before are yielded.
    """
    text = _Text(parts)
    text.expect("[")
    if text.next_mark() == "]":
        text.expect("]")
    else:
        mark = ","
        while mark != "]":
            yield text.value()
            mark = text.expect(",]")
    if text.next_mark():
        raise text.error("text after the array")


class _Text:
    """Text that is read as far as it is needed; what was taken is dropped."""

    def __init__(self, parts: Iterable[str]) -> None:
        self._parts = iter(parts)
        self._held, self._at = "", 0
        self._dropped = 0  # characters

    def next_mark(self) -> str:
        """Return the next character that is not blank, without taking it; nothing at the end."""
        while True:
            blank = _BLANKS.match(self._held, self._at)
            assert blank is not None, "it matches nothing, too"
            self._at = blank.end()
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._read_more():
                return ""

    def expect(self, marks: str) -> str:
        """Take the next character that is not blank, which must be one of `marks`, and return it."""
        mark = self.next_mark()
        if not mark or mark not in marks:
            raise self.error(f"{mark!r} in place of {' or '.join(marks)}" if mark else "it ends inside the array")
        self._at += 1
        return mark

    def value(self) -> Any:
        """Take the next JSON value."""
        self.next_mark()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                beyond = error.pos - self._at
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._held) - _LONGEST_TOKEN
                if cut and self._read_more():
                    continue
                raise self.error(error.msg.removesuffix(" at"), beyond) from None
            except (ValueError, RecursionError) as error:  # such as a number of too many digits
                raise self.error(f"JSON that cannot be read ({error})") from None
            taken = end - self._at
            if end > len(self._held) - _END_OF_NUMBER and self._read_more():
                continue  # a number may go on
            self._at += taken
            return value

    def error(self, problem: str, beyond: int = 0) -> ArrayError:
        """Return an error of the character that is so many beyond the present place."""
        return ArrayError(f"{problem}, at character {self._dropped + self._at + beyond + 1}")

    def _read_more(self) -> bool:
        """Read as much as is held, so that a long value is decoded a few times only; return whether there was more."""
        self._dropped += self._at
        held, self._at = self._held[self._at :], 0
        found, wanted = [held], max(len(held), 1)
        for part in self._parts:
            found.append(part)
            wanted -= len(part)
            if wanted <= 0:
                break
        self._held = "".join(found)
        return len(self._held) > len(held)


_DECODER = json.JSONDecoder()
