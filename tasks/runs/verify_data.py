"""Verification of packed files against the manifest's hashes before a run starts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from threading import Lock

from velocitune_core.config import ConfigError
from velocitune_core.files import file_sha256

_hashing = Lock()  # runs that start at the same time share one hash of a file


def check_packed(files: Iterable[tuple[Path, str]]) -> None:
    """Compare files with the SHA-256 in the manifest; an unchanged file is hashed once per process.

    Raises ConfigError naming every file that differs. Missing files are skipped: opening them raises.
    """
    problems = []
    for path, expected in files:
        if path.is_file() and (found := _sha256(path)) != expected:
            problems.append(
                f"{path}: not the file that `prepare` wrote, SHA-256 {found[:12]}… instead of the manifest's "
                f"{expected[:12]}…; run the stage `prepare` again"
            )
    if problems:
        raise ConfigError("\n".join(problems))


def _sha256(path: Path) -> str:
    status = path.stat()
    with _hashing:
        return _hash(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _hash(path: Path, size_bytes: int, modified_nanoseconds: int) -> str:
    return file_sha256(path)
