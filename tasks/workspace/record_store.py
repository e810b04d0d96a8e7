"""The database that MLflow's record is to lie in, before any work: or a run would end well and be in no view."""

from __future__ import annotations

from tasks.workspace.home import home
from velocitune_core.config import Tracking, without_credentials

SQLITE = b"SQLite format 3\0"  # how every such file begins


def store_problems(tracking: Tracking) -> list[str]:
    """Return why a database cannot hold the record, without connecting to it; a server may be out of reach for now."""
    if tracking.is_server:
        return []
    problem = _driver_problem(tracking.uri) if tracking.file is None else _file_problem(tracking)
    return [f"tracking.uri: {without_credentials(tracking.uri)!r}: {problem}"] if problem else []


def _file_problem(tracking: Tracking) -> str | None:
    assert tracking.file is not None
    file = home() / tracking.file
    if file.is_dir():
        return "is a folder; name a file in it"
    if not file.parent.is_dir():
        return f"the folder {file.parent} does not exist; make it, or name a file in another one"
    try:
        with file.open("rb") as opened:
            beginning = opened.read(len(SQLITE))
    except FileNotFoundError:
        return None  # MLflow makes it
    except OSError as error:
        return f"cannot be read ({error.strerror}); name another file"
    return "holds no SQLite database; name another file" if beginning not in (b"", SQLITE) else None


def _driver_problem(uri: str) -> str | None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError

    try:
        create_engine(uri).dispose()  # connects to nothing
    except (ImportError, ArgumentError) as error:
        return f"{without_credentials(str(error))}; install its driver, or name another store"
    return None
