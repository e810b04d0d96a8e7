"""A workspace that cannot be written is refused in a line: a read-only file system, another user's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, Timeout

from tasks.workspace import paths
from velocitune_core.config import ConfigError
from velocitune_core.train.system_lock import NoLocksError


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Raise ConfigError for what cannot be written inside, naming it."""
    try:
        yield
    except (Timeout, NoLocksError):  # both are OSErrors
        raise
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written: {error.strerror}; work in a folder that you may write "
            "to, or correct its permissions"
        ) from None


def take(lock: BaseFileLock) -> None:
    """Take a lock in the folder `.velocitune`, which is made. Raises filelock.Timeout, NoLocksError, ConfigError."""
    with writing_in(paths.STATE):
        paths.STATE.mkdir(exist_ok=True)
        lock.acquire()
