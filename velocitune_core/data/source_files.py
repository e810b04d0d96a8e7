"""The files of a source: which are read, in which order, and what lies beside them and is not."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from velocitune_core.config import Source
from velocitune_core.data.compressed import COMPRESSIONS, open_stream
from velocitune_core.data.json_array import array_elements
from velocitune_core.data.texts import UndecodableError, decoded_parts

_KINDS: Mapping[str, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet",),
    "text": ("",),  # any file
}
_COMPRESSED = {"jsonl", "text"}  # parquet is compressed inside
_LINE_BYTES = 1 << 24  # of the first line of a .json file, which may be a whole corpus in one array
_PARTS_LOOKED_AT = 64  # of a file, for the first element of an array
_WITHOUT_TEXT = {".gitignore", ".gitattributes", ".gitkeep", ".dvcignore", ".DS_Store", "Thumbs.db"}  # nobody's text


@dataclass
class Found:
    """What a source's path leads to: files to read, in order; what is left out, with the reason; problems."""

    files: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # "<path>: <reason>"
    problems: list[str] = field(default_factory=list)


def find_files(source: Source, root: Path) -> Found:
    """Return the files of a file name, folder or glob, sorted by path. Links are followed.

    Suffixes count in upper and lower case. A file of a folder that is hidden, of another type, or a link to nothing,
    is left out with the reason. One that the source names itself, by path or glob, is a problem instead. Empty files
    are left out, too, unless there is no other.
    """
    path = root / source.path
    if path.is_dir():
        found = _in_folder(path, source.type, source.text_field)
        if not found.files and not found.problems:
            empty = not found.left_out and not any(path.iterdir())
            content = "is empty" if empty else f"no {_kinds(source.type)} file in this folder"
            found.problems.append("\n".join([f"{path}: {content}", *found.left_out[:5]]))
        return found
    if path.is_file():
        return _named([path], source.type)
    if path.is_symlink():
        return Found(problems=[f"{path}: a link to {path.readlink()}, which does not exist"])
    if not glob.has_magic(source.path):
        return Found(problems=[f"{path}: no such file or folder; check `path` of the source and data.path"])
    matches = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - the path may be absolute
    visible = [each for each in matches if not each.is_dir() and not _hidden(each, root)]
    if not visible:
        return Found(problems=[f"{path}: no file matches"])
    return _named(visible, source.type)


def is_type(path: Path, kind: str) -> bool:
    """Return whether a file's name has a suffix of the type, in upper or lower case."""
    return path.name.lower().endswith(_suffixes(kind))


def _suffixes(kind: str) -> tuple[str, ...]:
    compressed = ("", *COMPRESSIONS) if kind in _COMPRESSED else ("",)
    return tuple(plain + packed for plain in _KINDS[kind] for packed in compressed)


def _kinds(kind: str) -> str:
    listed = " or ".join(_KINDS[kind]) or "text"
    return f"{listed} ({', '.join(COMPRESSIONS)})" if kind == "jsonl" else listed


def _named(paths: list[Path], kind: str) -> Found:
    """Return files that the source names: what cannot be read of them is a problem."""
    found = Found()
    for path in paths:
        if not path.exists():
            found.problems.append(f"{path}: a link to {path.readlink()}, which does not exist")
        elif not is_type(path, kind):
            found.problems.append(f"{path}: not a {_kinds(kind)} file; rename it or change the source's type")
        elif kind == "jsonl" and (problem := _not_rows(path)):
            found.problems.append(f"{path}: {problem}")
        elif _without_content(path, kind):
            found.left_out.append(f"{path}: empty")
        else:
            found.files.append(path)
    if not found.files and not found.problems:
        found.problems += [f"{each}; put text there, or name another file" for each in found.left_out]
    return found


def _in_folder(folder: Path, kind: str, text_field: str) -> Found:
    found = Found()
    for path in _walk(folder, (), found):
        if path.name in _WITHOUT_TEXT:
            continue
        if reason := _reason_to_leave(path, kind, text_field):
            found.left_out.append(f"{path}: {reason}")
        else:
            found.files.append(path)
    found.files.sort()
    found.left_out.sort()
    return found


def _reason_to_leave(path: Path, kind: str, text_field: str) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if not path.exists():
        return f"a link to {path.readlink()}, which does not exist"
    if not path.is_file():
        return "not a file"
    if not is_type(path, kind):
        return f"not a {_kinds(kind)} file"
    if _without_content(path, kind):
        return "empty"
    return _not_rows(path, text_field) if kind == "jsonl" else None


def _without_content(path: Path, kind: str) -> bool:
    """Return whether a file has no byte; one of parquet is damaged then, and reported when it is read."""
    return kind != "parquet" and path.stat().st_size == 0


def _walk(folder: Path, above: tuple[Path, ...], found: Found) -> Iterator[Path]:
    """Yield what is not a folder, in `folder` and those below it, also through links, each folder once on a way."""
    above = (*above, folder.resolve())
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        found.problems.append(f"{folder}: cannot be read ({error.strerror}); allow it, or move the folder away")
        return
    for name in names:
        path = folder / name
        if not path.is_dir():
            yield path
        elif name.startswith("."):
            found.left_out.append(f"{path}: a hidden folder")
        elif path.is_symlink() and any(each.is_relative_to(path.resolve()) for each in above):
            found.left_out.append(f"{path}: a link to a folder that it lies in")
        else:
            yield from _walk(path, above, found)


def holds_array(path: Path) -> bool:
    """Return whether a file is named .json, compressed or not, and begins as an array. Raises OSError and EOFError."""
    if not _is_json(path):
        return False
    with open_stream(path) as stream:
        return _line(stream).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _is_json(path: Path) -> bool:
    return path.name.lower().endswith(tuple(f".json{packed}" for packed in ("", *COMPRESSIONS)))


def _not_rows(path: Path, text_field: str | None = None) -> str | None:
    """Return why a .json file is neither lines of JSON nor an array; None for these, and for another suffix.

    A single object without `text_field`, if that is given, is no line of text but facts about the data; so is an array
    that does not begin with an object that has it.
    """
    if not _is_json(path):
        return None
    try:
        if holds_array(path):
            return None if text_field is None else _not_of_texts(path, text_field)
        with open_stream(path) as stream:
            first, another = _line(stream).removeprefix(b"\xef\xbb\xbf").strip(), _line(stream)
        value = json.loads(first) if 0 < len(first) < _LINE_BYTES else None
        if text_field is None or another or not isinstance(value, dict) or text_field in value:
            return None
        return f"one JSON object, without a field {text_field!r}"
    except (ValueError, RecursionError):
        pass  # it goes on in the next line, or is no JSON
    except (OSError, EOFError):
        return None  # reported when it is read
    return "one JSON value over several lines; write one object per line (jq -c), or an array of objects"


def _not_of_texts(path: Path, text_field: str) -> str | None:
    """Return why an array is not one of texts, by its first element, unless that is too long to be looked at."""
    parts = decoded_parts(path)
    try:
        first = next(array_elements(islice(parts, _PARTS_LOOKED_AT)), None)
    except UndecodableError:
        return None  # reported when it is read
    except ValueError:
        first = None
        if next(parts, None) is not None:
            return None
    if isinstance(first, dict) and text_field in first:
        return None
    return f"a JSON array that does not begin with an object with a field {text_field!r}"


def _line(stream: BinaryIO) -> bytes:
    """Return the next line that is not blank, or as much of it as is looked at; nothing at the end."""
    line = b"\n"
    while line and not line.strip():
        line = stream.readline(_LINE_BYTES)
    return line


def _hidden(path: Path, base: Path) -> bool:
    parts = path.relative_to(base).parts if path.is_relative_to(base) else path.parts[-1:]
    return any(part.startswith(".") and part != ".." for part in parts)


def unwatched(files: Iterable[Path], root: Path) -> list[Path]:
    """Return the files that DVC does not track below `root`: those outside of it, and those behind a linked folder."""

    def behind_a_link(path: Path) -> bool:
        return any(each.is_symlink() for each in path.parents if each != root and each.is_relative_to(root))

    return [path for path in files if not path.is_relative_to(root) or ".." in path.parts or behind_a_link(path)]
