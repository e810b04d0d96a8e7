"""A YAML file with some values changed, and its other lines as they were: a round trip rewrites quotes and indents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher


def changed_lines_only(own: str, before: str, after: str) -> str:
    """Return a file with what differs between two dumps of it, and its other lines byte for byte.

    Args:
        own: the file.
        before: the dump of what it holds, which may have other quotes, spaces and line breaks.
        after: the dump of that with other values.
    """
    ending = "\r\n" if "\r\n" in own else "\n"
    lines, dumped, changed = own.splitlines(), before.splitlines(), after.splitlines()
    passages, found = _passages(lines, dumped), list[str]()
    for tag, start, end, first, last in _blocks(dumped, changed):
        if tag != "equal":
            found += changed[first:last]
            continue
        for each in passages:
            if start <= each.start and each.end <= end:
                found += each.own
            elif each.start < end and start < each.end:  # of its lines in the dump, others have changed
                found += dumped[max(start, each.start) : min(end, each.end)]
    return ending.join(found) + ending


def lines_taken_back(before: str, changed: str, now: str) -> str:
    """Return an edited file in which lines that a change has written, and that are still there, are as before it.

    Args:
        before: the file before the change.
        changed: the file after it.
        now: the changed file, edited; its other lines stay byte for byte.
    """
    old, written, lines = before.splitlines(), changed.splitlines(), now.splitlines(keepends=True)
    ending = "\r\n" if "\r\n" in now else "\n"
    blocks = _blocks(written, now.splitlines())
    place = {start + n: first + n for tag, start, end, first, _ in blocks if tag == "equal" for n in range(end - start)}
    place |= {-1: -1, len(written): len(lines)}
    for start, end, first, last in reversed(list(_changes(old, written))):
        removed = first == last  # and so between two other lines
        wanted = range(first - 1, last + 1) if removed else range(first, last)
        found = [place[line] for line in wanted if line in place]
        if len(found) < len(wanted) or found[-1] - found[0] != len(found) - 1:
            continue  # edited
        at = found[-1] if removed else found[0]
        if at == len(lines) > 0 and not lines[-1].endswith("\n"):
            lines[-1] += ending
        lines[at : at + last - first] = [f"{line}{ending}" for line in old[start:end]]
    return "".join(lines)


def _changes(old: list[str], new: list[str]) -> Iterator[tuple[int, int, int, int]]:
    """Yield start and end of the lines that differ, in the old text and in the new one; one by one where possible."""
    for tag, start, end, first, last in _blocks(old, new):
        if tag == "replace" and end - start == last - first:
            yield from ((start + n, start + n + 1, first + n, first + n + 1) for n in range(end - start))
        elif tag != "equal":
            yield start, end, first, last


def indent_of(text: str) -> int:
    """Return the indent of the first key within another one in a YAML file; 2 if there is none."""
    found = re.search(r"^[^\s#-][^\n]*:[^\n]*\n(?:[ \t]*(?:#[^\n]*)?\n)*( +)[^\s#-]", text, re.MULTILINE)
    return len(found[1]) if found else 2


@dataclass
class _Passage:
    """Lines of a file, and those from `start` to `end` of its dump, which say the same."""

    own: list[str]
    start: int
    end: int


def _passages(lines: list[str], dumped: list[str]) -> list[_Passage]:
    """Return the shortest passages that can be distinguished, none of which is empty in the dump."""
    found: list[_Passage] = []
    not_dumped: list[str] = []  # such as `---`
    for _, start, end, first, last in _blocks(lines, dumped):
        if first == last:
            not_dumped += lines[start:end]
        elif end - start == last - first:
            found += _single_lines(lines[start:end], dumped[first:last], first)
        else:
            found.append(_Passage(lines[start:end], first, last))
        if not_dumped and first < last:
            passage = next(each for each in found if each.start == first)
            passage.own[:0] = not_dumped
            not_dumped = []
    if found:
        found[-1].own += not_dumped
    return found


def _single_lines(lines: list[str], dumped: list[str], first: int) -> list[_Passage]:
    """Return a passage per line; lines with another indent are one, as a part of them with the old one is no YAML."""
    found: list[_Passage] = []
    indented = False
    for number, (line, written) in enumerate(zip(lines, dumped, strict=True), start=first):
        before, indented = indented, _indent(line) != _indent(written)
        if before and indented:
            found[-1].own.append(line)
            found[-1].end = number + 1
        else:
            found.append(_Passage([line], number, number + 1))
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _blocks(old: list[str], new: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
