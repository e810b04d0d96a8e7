"""Packed files as trainings read them: memory-mapped .npy matrices of fixed-length sequences, known by their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

Rows = np.ndarray[tuple[int, int], np.dtype[np.unsignedinteger[Any]]]  # (sequences, sequence_length)


def load_split(path: Path) -> Rows:
    """A packed split, memory-mapped and read-only: (sequences, sequence_length)."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
