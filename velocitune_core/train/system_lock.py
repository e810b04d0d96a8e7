"""A lock on a file that the system frees when its process ends, or an error where the file system has none."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from filelock import FileLock

# What flock says of a file system without it: a kernel without the call, Lustre and FUSE, NFS without a lock daemon.
_WITHOUT_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


class NoLocksError(OSError):
    """The file system has no locks."""


class SystemLock(FileLock):
    """filelock's lock with flock. The options are those of FileLock; it must be made with `system_lock`."""

    def acquire(self, *arguments: Any, **options: Any) -> Any:
        """Take the lock. Raises filelock.Timeout, and NoLocksError if the file system has no flock."""
        try:
            return super().acquire(*arguments, **options)
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            raise NoLocksError(
                error.errno,
                "its file system has no locks (flock): mount it with them (Lustre: option flock), or work in a folder "
                "on another file system",
                str(Path(self.lock_file).parent),
            ) from None


def system_lock(path: Path, **options: Any) -> SystemLock:
    """Return a lock on a file that may be taken from any thread.

    filelock would else replace flock, where it is missing, by a file that a killed process leaves for ever.
    """
    return SystemLock(path, thread_local=False, fallback_to_soft=False, **options)
