"""Rows of packed files: cutting a stream of tokens, drawing the held-out ones, appending the others to a file.

Each part can be written down between two documents and taken up again from what was written.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from velocitune_core.data.packed_files import Rows

Tokens = np.ndarray[tuple[int], np.dtype[np.unsignedinteger[Any]]]  # (tokens,)
Arrays = dict[str, np.ndarray]


class RowStream:
    """Cuts a stream of tokens into rows."""

    def __init__(self, length: int, dtype: np.dtype[Any]) -> None:
        self.rest: Tokens = np.empty(0, dtype)  # what fills no row yet
        self._length = length

    def add(self, tokens: Tokens) -> Rows:
        """The rows that are full with these tokens; what is left waits for more."""
        joined = np.concatenate([self.rest, tokens])
        cut = len(joined) - len(joined) % self._length
        self.rest = joined[cut:].copy()
        return joined[:cut].reshape(-1, self._length)


class Reservoir:
    """An even draw of rows out of a stream of unknown length (algorithm R), kept in the stream's order."""

    def __init__(self, size: int, name: str) -> None:
        self.offered = 0
        self._size = size
        self._kept: dict[int, tuple[int, np.ndarray]] = {}  # slot → position in the stream, row
        self._random = np.random.default_rng(int.from_bytes(hashlib.sha256(f"held-out {name}".encode()).digest()))

    def offer(self, rows: Rows) -> None:
        for row in rows:
            slot = self.offered if self.offered < self._size else int(self._random.integers(self.offered + 1))
            if slot < self._size:
                self._kept[slot] = (self.offered, row.copy())
            self.offered += 1

    def rows(self) -> Rows:
        return np.stack([row for _, row in sorted(self._kept.values(), key=lambda kept: kept[0])])

    def random_state(self) -> Any:
        """Of the generator, as JSON."""
        return self._random.bit_generator.state

    def arrays(self) -> Arrays:
        """The draw so far: slots and positions (n,), and rows (n, length) if there are any."""
        if not self._kept:
            return {}
        slots = np.array(list(self._kept))
        positions = np.array([position for position, _ in self._kept.values()])
        return {"slots": slots, "positions": positions, "rows": np.stack([row for _, row in self._kept.values()])}

    def restore(self, offered: int, random_state: Any, arrays: Arrays) -> None:
        self.offered = offered
        self._random.bit_generator.state = random_state
        if "slots" in arrays:
            kept = zip(arrays["positions"].tolist(), arrays["rows"], strict=True)
            self._kept = dict(zip(arrays["slots"].tolist(), kept, strict=True))


class RowWriter:
    """Appends rows to a .npy file whose number of rows is known only at the end.

    numpy pads a header for 21 digits of the first axis for this purpose: the final header is as long as the first. With
    `sequences`, a file that was cut short by a kill is taken up again after that many rows.
    """

    def __init__(self, path: Path, length: int, dtype: np.dtype[Any], sequences: int = 0) -> None:
        self.sequences = sequences
        self._shape, self._dtype = length, dtype
        self._file = path.open("r+b" if sequences else "w+b")
        self._write_header()
        self._header_bytes = self._file.tell()
        self._file.truncate(self._header_bytes + sequences * length * dtype.itemsize)
        self._file.seek(0, os.SEEK_END)

    def append(self, rows: Rows) -> None:
        self._file.write(rows.tobytes())
        self.sequences += len(rows)

    def sync(self) -> None:
        """On disk before anything is written that counts on it."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Write the final header; the file is whole."""
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._header_bytes
        self.sync()

    def close(self) -> None:
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.sequences, self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
