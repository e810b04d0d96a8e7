"""Rows of packed files: cut from a stream of tokens, sampled for the held-out set, appended to a file.

The state of each class between two documents can be saved, and restored from what was saved.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

Tokens = np.ndarray[tuple[int], np.dtype[np.unsignedinteger[Any]]]  # (tokens,)
Rows = np.ndarray[tuple[int, int], np.dtype[np.unsignedinteger[Any]]]  # (sequences, sequence_length)
Arrays = dict[str, np.ndarray]


class RowStream:
    """Cut a stream of tokens into rows of `length` tokens."""

    def __init__(self, length: int, dtype: np.dtype[Any]) -> None:
        self.rest: Tokens = np.empty(0, dtype)  # the last tokens, fewer than a row
        self._length = length

    def add(self, tokens: Tokens) -> Rows:
        """Append tokens to the stream, and return the rows (n, length) that they complete."""
        joined = np.concatenate([self.rest, tokens])
        cut = len(joined) - len(joined) % self._length
        self.rest = joined[cut:].copy()
        return joined[:cut].reshape(-1, self._length)


class Reservoir:
    """Uniform sample without replacement of at most `size` rows from a stream of unknown length, in stream order.

    Algorithm R (Vitter, "Random Sampling with a Reservoir", ACM TOMS 1985). The seed derives from `name`.
    """

    def __init__(self, size: int, name: str) -> None:
        self.offered = 0
        self._size = size
        self._kept: dict[int, tuple[int, np.ndarray]] = {}  # slot → position in the stream, row
        self._random = np.random.default_rng(int.from_bytes(hashlib.sha256(f"held-out {name}".encode()).digest()))

    def offer(self, rows: Rows) -> None:
        """Process the next rows (n, length) of the stream."""
        for row in rows:
            slot = self.offered if self.offered < self._size else int(self._random.integers(self.offered + 1))
            if slot < self._size:
                self._kept[slot] = (self.offered, row.copy())
            self.offered += 1

    def rows(self) -> Rows:
        """Return the sample (n, length). Raises ValueError before any row was offered."""
        return np.stack([row for _, row in sorted(self._kept.values(), key=lambda kept: kept[0])])

    def random_state(self) -> Any:
        """Return the state of the random generator, JSON-ready."""
        return self._random.bit_generator.state

    def arrays(self) -> Arrays:
        """Return the sample as slots (n,), positions (n,) and rows (n, length); no arrays if it is empty."""
        if not self._kept:
            return {}
        slots = np.array(list(self._kept))
        positions = np.array([position for position, _ in self._kept.values()])
        return {"slots": slots, "positions": positions, "rows": np.stack([row for _, row in self._kept.values()])}

    def restore(self, offered: int, random_state: Any, arrays: Arrays) -> None:
        """Restore `offered`, `random_state()` and `arrays()` of an earlier reservoir."""
        self.offered = offered
        self._random.bit_generator.state = random_state
        if "slots" in arrays:
            kept = zip(arrays["positions"].tolist(), arrays["rows"], strict=True)
            self._kept = dict(zip(arrays["slots"].tolist(), kept, strict=True))


class RowWriter:
    """Append rows to an .npy file whose number of rows is not known in advance.

    numpy pads the header so that the first axis may grow to 21 digits: the final header is as long as the first one.
    With `sequences` > 0 an existing file is truncated to that many rows, and writing continues after them.
    """

    def __init__(self, path: Path, length: int, dtype: np.dtype[Any], sequences: int = 0) -> None:
        self.sequences = sequences
        self._length, self._dtype = length, dtype
        self._file = path.open("r+b" if sequences else "w+b")
        self._write_header()
        self._header_bytes = self._file.tell()
        self._file.truncate(self._header_bytes + sequences * length * dtype.itemsize)
        self._file.seek(0, os.SEEK_END)

    def append(self, rows: Rows) -> None:
        """Write rows (n, length) at the end of the file."""
        self._file.write(rows.tobytes())
        self.sequences += len(rows)

    def sync(self) -> None:
        """Flush all appended rows to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Write the header with the final number of rows, and flush the file to the disk."""
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._header_bytes
        self.sync()

    def close(self) -> None:
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.sequences, self._length)}
        np.lib.format.write_array_header_1_0(self._file, header)
