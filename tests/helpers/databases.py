"""SQLite databases that are made once, as their tables take seconds, and copied for every test that needs one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from filelock import FileLock


def made_once(file: Path, make: Callable[[Path], object]) -> Path:
    """Return a database in a folder that processes may share; the first of them makes it, in another file."""
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            made = file.with_name(f"{file.stem}-made.db")
            make(made)
            copy_database(made, file)
    return file


def mlflow_store(folder: Path) -> Path:
    """Return MLflow's store with its tables and nothing in them; making them takes two seconds of processor time."""

    def make(file: Path) -> None:
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{file}")

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    return made_once(folder / "mlflow.db", make)


def copy_database(database: Path, to: Path) -> None:
    """Copy a database, with what SQLite has not yet merged into its file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as copy:
        source.backup(copy)
