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
from tasks.workspace.stage_cli import user_errors_shown
from velocitune_core.config import ConfigError
from velocitune_core.train.run_lock import RunLock


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The current folder, on a file system such as Lustre without `-o flock`, or NFS without a lock daemon."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_lock_names_the_folder_and_the_fix(folder: Path) -> None:
    fix = r": its file system has no locks \(flock\): mount it with them "
    with pytest.raises(ConfigError, match=str(folder / "run") + fix):
        RunLock(folder / "run").acquire()
    with pytest.raises(ConfigError, match=".velocitune" + fix), exclusive():
        pytest.fail("a workspace without locks was taken")
    with pytest.raises(ConfigError, match=str(folder) + fix), ExitStack() as held:
        _try_device(held, folder, "gpu-0", 1)


def test_a_command_ends_with_status_2_and_no_traceback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"), user_errors_shown(), exclusive():
        pytest.fail("a workspace without locks was taken")
    assert "no locks (flock)" in capsys.readouterr().err
