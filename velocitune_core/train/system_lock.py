"""A lock on a file that the system frees when its process ends, or an error with the fix where there can be none."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from velocitune_core.config import ConfigError

# What flock says of a file system without it: a kernel without the call, Lustre and FUSE, NFS without a lock daemon.
_WITHOUT_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
# What stays so until a user changes it; a full disk or a server out of reach may pass.
_IN_THE_WAY = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
}


class SystemLock(FileLock):
    """filelock's lock with flock. The options are those of FileLock; it must be made with `system_lock`."""

    def acquire(self, *arguments: Any, **options: Any) -> Any:
        """Take the lock, for which its folder is made.

        Raises filelock.Timeout, ConfigError if it cannot be made before a user changes something, and OSError for what
        may pass.
        """
        path = Path(self.lock_file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return super().acquire(*arguments, **options)
        except Timeout:  # an OSError, too
            raise
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                raise ConfigError(
                    f"{path.parent}: its file system has no locks (flock): mount it with them (Lustre: option flock), "
                    "or work in a folder on another file system"
                ) from None
            if error.errno not in _IN_THE_WAY:
                raise
            raise ConfigError(
                f"{error.filename or path}: cannot be locked: {error.strerror}; remove what is in its place, or work "
                "in a folder that you may write to"
            ) from None


def system_lock(path: Path, **options: Any) -> SystemLock:
    """Return a lock on a file that may be taken from any thread.

    filelock would else replace flock, where it is missing, by a file that a killed process leaves for ever.
    """
    return SystemLock(path, thread_local=False, fallback_to_soft=False, **options)
