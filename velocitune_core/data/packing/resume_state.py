"""The state from which an interrupted packing resumes, in one SQLite file.

It holds the digests of all documents read and the packer's state at the end of the last shard. Both are committed in
one transaction per shard, so they are consistent after a kill at any moment. The digests stay on disk, so memory does
not grow with the number of documents.
"""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

_CACHE_KIB = 65536  # SQLite's page cache

Shard = tuple[dict[str, Any], dict[str, np.ndarray]]  # JSON-ready values, arrays


class PackingState:
    """The state file at `path`, opened if its key matches and created otherwise.

    `key` is a hash of everything that decides the packed files. A file with another key, a corrupt file, and any file
    if `key` is None are replaced by an empty one.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        try:
            self._open(path)
            matches = self._read("key") == json.dumps(key)
        except sqlite3.DatabaseError:
            matches = False
        if key is None or not matches:
            self._create(path, key)

    def clear(self) -> None:
        """Delete everything but the key."""
        self._db.execute("DELETE FROM digests")
        self._db.execute("DELETE FROM state WHERE name != 'key'")
        self._db.commit()

    def add(self, digest: bytes) -> bool:
        """Insert a digest, and return whether it is new."""
        return self._db.execute("INSERT OR IGNORE INTO digests VALUES (?)", (digest,)).rowcount == 1

    def save(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Commit the digests added since the last call together with this state, durably."""
        rows = [("values", json.dumps(values)), *((f"array {name}", _bytes(each)) for name, each in arrays.items())]
        self._db.execute("DELETE FROM state WHERE name != 'key'")
        self._db.executemany("INSERT INTO state VALUES (?, ?)", rows)
        self._db.commit()

    def load(self) -> Shard | None:
        """Return the values and arrays of the last `save`; None if there was none."""
        if (values := self._read("values")) is None:
            return None
        saved = self._db.execute("SELECT name, value FROM state WHERE name LIKE 'array %'")
        arrays = {name.removeprefix("array "): np.load(io.BytesIO(value), allow_pickle=False) for name, value in saved}
        return json.loads(values), arrays

    def close(self) -> None:
        """Close the file. Digests added since the last `save` are discarded."""
        self._db.close()

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("CREATE TABLE IF NOT EXISTS digests (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value)")

    def _create(self, path: Path, key: str | None) -> None:
        self.close()
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        self._open(path)
        self._db.execute("INSERT INTO state VALUES ('key', ?)", (json.dumps(key),))
        self._db.commit()

    def _read(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]


def _bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
