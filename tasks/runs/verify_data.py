"""Packed files are the ones that the stage `prepare` made, as their hashes tell, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from threading import Lock

from velocitune_core.config import ConfigError
from velocitune_core.data.packed_files import file_sha256

_hashing = Lock()  # trainings that start together wait for one hash, not for as many as there are trainings


def check_packed(files: Iterable[tuple[Path, str]]) -> None:
    """Compare files with the SHA-256 that the manifest gives; a process hashes a file once while it stays.

    Raises ConfigError naming every file that differs. One that is missing is left to whoever opens it.
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
