"""A workspace that cannot be written is refused in a line: a read-only file system, another user's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from velocitune_core.config import ConfigError


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Raise ConfigError for what cannot be written inside, naming it."""
    try:
        yield
    except Timeout:  # of a lock; an OSError, too
        raise
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written: {error.strerror}; work in a folder that you may write "
            "to, or correct its permissions"
        ) from None
