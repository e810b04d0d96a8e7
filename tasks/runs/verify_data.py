"""Verify packed files against the manifest's hashes before a run starts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from threading import Lock

from velocitune_core.config import ConfigError
from velocitune_core.data.packed_files import file_sha256

_hashing = Lock()  # runs that start together hash each file once


def check_packed(files: Iterable[tuple[Path, str]]) -> None:
    """Compare files with the manifest's SHA-256; a process hashes an unchanged file once.

    Raises ConfigError naming every file that differs. A missing file is not reported here, but when it is opened.
    """
    problems = []
    for path, expected in files:
        if path.is_file() and (found := _sha256(path)) != expected:
            problems.append(
                f"{path}: not what `prepare` made, SHA-256 {found[:12]}… in place of the manifest's {expected[:12]}…; "
                "run the stage `prepare` again"
            )
    if problems:
        raise ConfigError("\n".join(problems))


def _sha256(path: Path) -> str:
    fact = path.stat()
    with _hashing:
        return _hash(path.resolve(), fact.st_size, fact.st_mtime_ns)


@cache
def _hash(path: Path, size_bytes: int, changed_nanoseconds: int) -> str:
    return file_sha256(path)
