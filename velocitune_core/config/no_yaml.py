"""Text that is no YAML: in which line, why, and what to do, in one line for a person."""

from __future__ import annotations

import codecs
import re
from typing import Any

from velocitune_core.config.base import ConfigError
from velocitune_core.config.misread import missing_blank

TOO_DEEP = "mappings or lists inside one another too deeply to be settings"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_REMEDIES = {  # part of a parser's message → what to do
    TOO_DEEP: "remove brackets",
    "'\\t'": "indent with blanks, not with tabs",
    "mapping values are not allowed": "indent it as its neighbours, with a line break before each key, or quote the "
    "value if it has a colon",
    "cannot start any token": "quote the value",
    "stream end": "close the bracket or quote that is open",
    "end of stream": "close the quote that is open",
    "expected ',' or": "put commas between values, and close the bracket",
    "block end": "indent it as its neighbours",
    "undefined alias": "quote the value if its * is meant, or define the alias",
    "another document": "remove the line ---: settings are one document",
    "escape character": "write the backslash twice, or use single quotes",
    "constructor for the tag": "remove the tag (!)",
    "unhashable key": "write a name as the key",
}
_REMEDY = "correct it, or quote the value"


def decoded(content: bytes | str, origin: str) -> str:
    """Return the text of a file. Raises ConfigError, naming `origin`, for one that is not UTF-8."""
    if isinstance(content, str):
        return content
    if content.startswith(_UTF16):
        raise ConfigError(f"{origin}: is text in UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise ConfigError(
            f"{origin}: line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def why_no_yaml(error: Any, text: str, *, located: bool = True) -> str:
    """Return where and why a parser refused a text, and what to do, in one line.

    Args:
        error: YAMLError of PyYAML or ruamel.yaml, which have the same attributes.
        located: begin with line and character, as for a file.
    """
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:  # a character that no YAML has
        line = 1 + text.count("\n", 0, getattr(error, "position", 0))
        character = getattr(error, "character", None)
        what = f"character U+{character:04X}" if isinstance(character, int) else str(error)
        remedy = "remove it, or save the file as UTF-8" if located else "remove it"
        return f"{f'line {line}: ' if located else ''}not YAML: {what}; {remedy}"
    lines = _lines_without_blank(text.splitlines(), mark.line) if located else _keys_without_blank(text)
    if missing := list(lines):
        return "; ".join(missing)
    if "expected" in (context := getattr(error, "context", None) or ""):
        problem = f"{context}, {problem}"
    remedy = next((remedy for part, remedy in _REMEDIES.items() if part in problem), _REMEDY)
    where = f"line {mark.line + 1}, character {mark.column + 1}: " if located else ""
    return f"{where}not YAML: {problem}; {remedy}"


def _lines_without_blank(lines: list[str], marked: int) -> list[str]:
    """Return the lines of `key:value` that end where a parser stopped, or just before, and what to write there.

    To YAML they are text that goes on in the next line, so that a parser stops only there.
    """
    found: list[str] = []
    for number in range(min(marked, len(lines) - 1), -1, -1):
        content = re.sub(r"^\s*(- +)*", "", lines[number])
        if missing := missing_blank(content):
            found.insert(0, f"line {number + 1}: {missing}")
        elif number < marked and content and not content.startswith("#"):
            break
    return found


def _keys_without_blank(text: str) -> list[str]:
    """Return what to write for each `key:value` in the mappings of one line."""
    return [missing for each in re.split(r"[{,]\s*", text) if (missing := missing_blank(each))]
