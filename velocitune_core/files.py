"""Atomic writes (temporary name, fsync, rename), hashes of files, keys of JSON, and who holds a lock file."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from uuid import uuid4

logger = logging.getLogger(__name__)
NAME_BYTES = 255  # of a file or folder: what the usual file systems take
PATH_BYTES = 1000  # systems take 1024 or 4096, with the folder that it is relative to and names that are added
_PRIVATE = 0o600  # of a file that is made as a temporary one, whatever the umask
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def only_file(folder: Path, pattern: str) -> Path:
    """Return the file in `folder` whose name matches a glob pattern. Raises LookupError unless exactly one does."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise LookupError(f"{folder}: no file {pattern}")
    raise LookupError(f"{folder}: {', '.join(path.name for path in found)}: keep one of them")


class RepeatedKeyError(ValueError):
    """A key that an object of JSON has twice, of which readers silently take the last."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, as `object_pairs_hook` of json.loads. Raises RepeatedKeyError for a key twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise RepeatedKeyError(f"the key {twice!r} is there twice in one object")
    return found


def path_problem(text: str) -> str | None:
    """Return why text cannot be the path of a file or folder, whatever is on the disk, with the fix; None if it can."""
    what = "cannot be a path"
    try:
        parts = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:
        return f"{what}: it has half a surrogate pair; write the character itself"
    if b"\0" in b"/".join(parts):
        return f"{what}: it has the character NUL; remove that"
    names = [part for part in parts if not set(b"*?[") & set(part)]  # a pattern may be longer than what it matches
    if (longest := max(map(len, names), default=0)) > NAME_BYTES:
        return f"{what}: a name in it has {longest} bytes; give one of at most {NAME_BYTES}"
    if (length := len(os.fsencode(text))) > PATH_BYTES:
        return f"{what}: it has {length} bytes; give one of at most {PATH_BYTES}"
    return None


def obstacle_to_file(path: Path) -> str | None:
    """Return why no file can be written at `path`, with the fix; None if one can, also over an older file."""
    there = os.path.lexists(path)  # False for a name that is too long, for which methods of Path raise
    if there and path.is_dir():
        return f"{path} is a folder, which no file replaces; give the name of a file, such as {path / 'NAME'}"
    if there and path.exists() and not path.is_file():
        return f"{path} is a device, a pipe or a socket, which no file replaces; give the name of a file"
    return obstacle_to_folder(path.parent)


def obstacle_to_folder(path: Path) -> str | None:
    """Return why no folder can be made at `path`, with the fix; None if one can, or is there."""
    there = next((each for each in (path, *path.parents) if os.path.lexists(each)), Path())
    return None if there.is_dir() else f"{there} is no folder, so that nothing can be in it; give another place"


def obstacle_to_files_in(path: Path) -> str | None:
    """Return why no files can be made in the folder `path`, which may be missing, with the fix; None if they can."""
    if obstacle := obstacle_to_folder(path):
        return obstacle
    try:
        check_writable(path)
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}; give another place"
    return None


def check_writable(folder: Path, prefix: str = "") -> None:
    """Raise OSError if no file can be made in a folder, which may be missing; leave nothing behind.

    It is tried, as permissions do not say it: root has all of them, also in /proc and on a file system that is full of
    files or takes none.

    Args:
        prefix: how the name of the file begins.
    """
    for tries_left in reversed(range(50)):
        try:
            _make_and_remove(folder, prefix)
        except FileNotFoundError:  # another process has removed a folder that it had made for the same check
            if not tries_left:
                raise
        else:
            return


def _make_and_remove(folder: Path, prefix: str) -> None:
    made: list[Path] = []
    try:
        for each in reversed((folder, *folder.parents)):
            if not each.exists():
                with suppress(FileExistsError):  # another process has made it meanwhile
                    each.mkdir()
                    made.append(each)
        with NamedTemporaryFile(prefix=prefix, dir=folder):
            pass
    finally:
        for each in reversed(made):
            with suppress(OSError):  # another process has put a file there
                each.rmdir()


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file that is never changed in place a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write `text` in UTF-8 to `path`, atomically: after a crash the file has its old content or the new.

    Args:
        mode: its permissions; None: as the umask gives them to new files.

    Raises FileExistsError, and changes nothing, if a folder is there.
    """
    with replacing(path) as temporary:
        if mode is not None:
            temporary.touch(_PRIVATE)  # before there is something to read in it
        temporary.write_text(text, encoding="utf-8")
        if mode is not None:
            temporary.chmod(mode)


def write_holder(path: Path, command: str | None = None) -> None:
    """Write which process this is, for those that find the lock beside `path` taken.

    Args:
        command: how it was started; None: its command line.
    """
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.orig_argv) if command is None else command,
    }
    write_text(path, json.dumps(holder))


def describe_holder(path: Path) -> str | None:
    """Describe the process that wrote `path` last; None as long as none has."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"`{holder['command']}` (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; the file or folder created there replaces `path` when the block ends.

    If the block raises, the temporary is removed and `path` is unchanged. A file replaces no folder: see `commit`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _free_name(path, "tmp")
    try:
        yield temporary
        commit(temporary, path)
    finally:
        discard(temporary)


def commit(temporary: Path, path: Path) -> None:
    """Flush a finished file or folder to the disk and rename it to `path`, in the same folder.

    A file inside a folder gets the permissions that the umask gives to new files, if a library has made it private, as
    safetensors does.

    An older file at `path` is replaced by a file, and a folder by a folder. Where two names cannot be exchanged (see
    `_exchange`), a folder is moved away before the new one takes its name, so a crash between the two renames leaves
    `path` absent. A folder that cannot be removed once it is replaced stays beside `path`, with a warning.

    Raises FileExistsError, and changes nothing, for a file where a folder, or anything else that is no file, is in its
    place; NotADirectoryError for a folder where a file is.
    """
    if not temporary.is_dir() and (obstacle := obstacle_to_file(path)):
        raise FileExistsError(errno.EEXIST, obstacle)
    _share(temporary)
    _sync(temporary)
    old = temporary
    if not path.is_dir():
        temporary.replace(path)
    elif not _exchange(temporary, path):  # rename(2) replaces a file but no folder with content
        old = _free_name(path, "old")
        path.rename(old)
        try:
            temporary.replace(path)
        except OSError:
            old.rename(path)
            raise
    _fsync(path.parent)
    discard(old)


def discard(path: Path) -> None:
    """Remove a file or folder that is of no use, if it is there; what cannot be removed stays, with a warning."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # as much of it as can be removed
        if os.path.lexists(path):  # or another process was removing it, too
            logger.warning("%s is of no use any more, but stays: %s; remove it by hand", path, error)


def _free_name(path: Path, suffix: str) -> Path:
    """Return a hidden name beside `path`: the one that a killed process of this id has left, once that is removed."""
    name = path.with_name(f".{path.name}.{os.getpid()}.{suffix}")
    discard(name)
    return path.with_name(f".{path.name}.{uuid4().hex}.{suffix}") if os.path.lexists(name) else name


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically; return False where the system or the file system cannot (Linux only)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _share(folder: Path) -> None:
    """Give private files below a folder the folder's own permissions, without those to execute."""
    for path in folder.rglob("*") if folder.is_dir() else []:
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) == _PRIVATE:
            path.chmod(stat.S_IMODE(path.parent.stat().st_mode) & 0o666)


def _sync(path: Path) -> None:
    """fsync a file, or every file and folder below a folder."""
    if path.is_dir():
        for child in path.iterdir():
            _sync(child)
    _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
