"""Locks of a file system without flock: refused by name, and nothing is left that locks for ever."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tasks.runs.devices import _try_device
from tasks.workspace.lock import exclusive
from velocitune_core.train.run_lock import RunLock


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, on a file system such as Lustre without `-o flock`."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_lock_names_the_folder_and_the_fix(folder: Path) -> None:
    fix = r"no locks \(flock\): mount it with them .*"
    with pytest.raises(OSError, match=fix + str(folder / "run")):
        RunLock(folder / "run").acquire()
    with pytest.raises(OSError, match=fix + ".velocitune"), exclusive():
        pytest.fail("a workspace without locks was taken")
    with pytest.raises(OSError, match=fix + str(folder)), ExitStack() as held:
        _try_device(held, folder, "gpu-0", 1)
