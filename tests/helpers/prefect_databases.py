"""Databases of Prefect servers, as copies of one: its migrations take seven seconds of processor time."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

MIGRATE = """
import asyncio
from prefect.server.database.dependencies import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""


def migrated_database(folder: Path) -> Path:
    """Return the database of a server that has seen nothing yet; made once in a folder that processes may share."""
    file = folder / "prefect.db"
    with FileLock(folder / "prefect.lock"):
        if not file.exists():
            made = folder / "prefect-migrated.db"
            inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
            own = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{made}"}
            subprocess.run([sys.executable, "-c", MIGRATE], cwd=folder, env=inherited | own, check=True)
            copy_database(made, file)
    return file


def copy_database(database: Path, to: Path) -> None:
    """Copy a database, with what SQLite has not yet merged into its file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as copy:
        source.backup(copy)


@contextmanager
def server_for_this_process(database: Path, folder: Path) -> Iterator[None]:
    """A Prefect server for all flows of this process, on a copy of a database in an empty folder."""
    from prefect.testing.utilities import prefect_test_harness

    copy_database(database, folder / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(folder))  # where the harness has its database
        with prefect_test_harness(server_startup_timeout=120):
            yield
