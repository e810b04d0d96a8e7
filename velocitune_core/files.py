"""Files that are either whole or absent: temporary name, fsync, rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8; a crash leaves the old content or the new, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what was made there (file or folder) takes its place at the end.

    On an exception the temporary is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        commit(temporary, path)
    finally:
        _remove(temporary)


def commit(temporary: Path, path: Path) -> None:
    """Put a finished file or folder, from a name beside it, in the place of `path`, once it is on the disk."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    _sync(temporary)
    try:
        if path.is_dir():  # rename(2) replaces a file, but no folder that holds something
            path.rename(aside)
        temporary.replace(path)
        _fsync(path.parent)
    finally:
        _remove(aside)


def _sync(path: Path) -> None:
    """fsync a file, or every file and folder below a folder."""
    if path.is_dir():
        for child in path.iterdir():
            _sync(child)
    _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
