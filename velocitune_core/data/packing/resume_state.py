"""What a killed packing goes on from, in one SQLite file: digests of documents, and the state at the end of a shard.

One transaction per shard: digests and state are of the same moment, however the process dies. Digests lie on disk, not
in memory, so a domain may have any number of documents.
"""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

_CACHE_KIB = 65536  # of the digests' pages

Shard = tuple[dict[str, Any], dict[str, np.ndarray]]  # JSON values, arrays


class PackingState:
    """The state file in a folder of its own, begun or taken up.

    `key` stands for all that decides the result. A file of another key, or a damaged one, is begun anew; so is every
    file where the key is None.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        try:
            self._open(path)
            known = self._read("key") == json.dumps(key)
        except sqlite3.DatabaseError:
            known = False
        if key is None or not known:
            self._begin(path, key)

    def begin_anew(self) -> None:
        """Forget everything but the key."""
        self._db.execute("DELETE FROM digests")
        self._db.execute("DELETE FROM state WHERE name != 'key'")
        self._db.commit()

    def add(self, digest: bytes) -> bool:
        """Whether the digest is new; remembers it."""
        return self._db.execute("INSERT OR IGNORE INTO digests VALUES (?)", (digest,)).rowcount == 1

    def save(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """All or nothing, and on disk when it returns."""
        rows = [("values", json.dumps(values)), *((f"array {name}", _bytes(each)) for name, each in arrays.items())]
        self._db.execute("DELETE FROM state WHERE name != 'key'")
        self._db.executemany("INSERT INTO state VALUES (?, ?)", rows)
        self._db.commit()

    def shard(self) -> Shard | None:
        """What was saved last; None in a new file."""
        if (values := self._read("values")) is None:
            return None
        saved = self._db.execute("SELECT name, value FROM state WHERE name LIKE 'array %'")
        arrays = {name.removeprefix("array "): np.load(io.BytesIO(value), allow_pickle=False) for name, value in saved}
        return json.loads(values), arrays

    def close(self) -> None:
        """What was added since the last `save` is forgotten."""
        self._db.close()

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("CREATE TABLE IF NOT EXISTS digests (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value)")

    def _begin(self, path: Path, key: str | None) -> None:
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
