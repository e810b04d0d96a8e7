"""The database that MLflow's record is to lie in, before any work: or a run would end well and be in no view."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.workspace.home import home
from tasks.workspace.made_by_stages import made_by_a_stage
from velocitune_core.config import LAST_PORT, Tracking, without_credentials
from velocitune_core.files import check_writable

SQLITE = b"SQLite format 3\0"  # how every such file begins


def store_problems(tracking: Tracking) -> list[str]:
    """Return why a database cannot hold the record, without connecting to it; a server may be out of reach for now."""
    if tracking.is_server:
        return []
    if tracking.file is None:
        problem = _driver_problem(tracking.uri)
    elif made := made_by_a_stage(Path(tracking.file)):
        problem = f"{made}, and would be lost with it; name a file in another folder"
    else:
        problem = _file_problem(home() / tracking.file)
    return [f"tracking.uri: {without_credentials(tracking.uri)!r}: {problem}"] if problem else []


def _file_problem(file: Path) -> str | None:
    try:
        check_writable(file.parent, f"{file.name}-")  # MLflow makes the folders, and SQLite such files beside its own
    except NotADirectoryError:
        return f"{_nearest(file)} is no folder; name a file in another folder"
    except OSError as error:
        return f"{_nearest(file)} cannot be written ({error.strerror}); name a file in another folder"
    if file.exists() and not file.is_file():  # /dev/null would take the record and keep nothing
        what = "folder; name a file in it" if file.is_dir() else "device, a pipe or a socket; name a file"
        return f"is a {what}"
    try:
        with file.open("r+b") as opened:
            beginning = opened.read(len(SQLITE))
    except FileNotFoundError:
        return None  # MLflow makes it
    except OSError as error:
        return f"cannot be written ({error.strerror}); name another file"
    return "holds no SQLite database; name another file" if beginning not in (b"", SQLITE) else None


def _nearest(file: Path) -> Path:
    """Return the deepest folder above a file that is there, or what is there in place of one."""
    return next(each for each in file.parents if os.access(each, os.F_OK))


def _driver_problem(uri: str) -> str | None:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        port = make_url(uri).port
    except (ValueError, ArgumentError):
        return f"is no address with a port from 1 to {LAST_PORT}; correct it"
    if port is not None and not 1 <= port <= LAST_PORT:
        return f"has port {port}; give one from 1 to {LAST_PORT}"
    try:
        create_engine(uri).dispose()  # connects to nothing
    except (ImportError, ArgumentError) as error:
        return f"{without_credentials(str(error))}; install its driver, or name another store"
    return None
