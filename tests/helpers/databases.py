"""SQLite databases that are made once, as their tables take seconds, and copied for every test that needs one.

They have the version of the package that made them in their names, as a folder may outlive it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock


def made_once(file: Path, make: Callable[[Path], object]) -> Path:
    """Return a database in a folder that processes may share; the first of them makes it, in other files."""
    with FileLock(f"{file}.lock"):
        if not file.exists():
            with TemporaryDirectory(dir=file.parent) as folder:
                made, whole = Path(folder, "made.db"), Path(folder, "whole.db")
                make(made)
                copy_database(made, whole)
                whole.rename(file)
    return file


def mlflow_store(folder: Path) -> Path:
    """Return MLflow's store with its tables and nothing in them; making them takes two seconds of processor time."""

    def make(file: Path) -> None:
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{file}")

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    return made_once(folder / f"mlflow-{version('mlflow')}.db", make)


def copy_database(database: Path, to: Path) -> None:
    """Copy a database, with what SQLite has not yet merged into its file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as copy:
        source.backup(copy)
