"""One run at a time in a workspace, however the other run ends and wherever it is."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.workspace import lock, paths
from tasks.workspace.lock import WorkspaceBusyError, exclusive
from velocitune_core.config import ConfigError

PROJECT = Path(__file__).parents[3]
HOLD = """
import time
from tasks.workspace.lock import exclusive
with exclusive():
    print("held", flush=True)
    time.sleep(120)
"""
TRY = """
from tasks.workspace.lock import exclusive, WorkspaceBusyError
try:
    with exclusive():
        print("held")
except WorkspaceBusyError as error:
    print(error)
"""
AS_PID_1 = "import os; os.getpid = lambda: 1\n"
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child"]


@contextmanager
def python(code: str, *launcher: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python on `code` in the current folder; it is killed at the end, also of a test that fails."""
    with subprocess.Popen(
        [*launcher, sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def namespaces_permitted() -> bool:
    found = shutil.which("unshare") is not None
    return found and subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def wait_until_held(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "held\n", process.stderr.read()


@pytest.fixture
def holder(workspace: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the workspace."""
    with python(HOLD) as process:
        wait_until_held(process)
        yield process


def test_a_second_process_is_refused_with_the_name_of_the_holder(holder: subprocess.Popen[str]) -> None:
    for _ in range(2):  # a refusal changes nothing
        with pytest.raises(WorkspaceBusyError, match=rf"process {holder.pid}\b.*since \d{{4}}-"), exclusive():
            pytest.fail("two processes hold the workspace")


def test_a_killed_holder_frees_the_workspace(holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    with exclusive():
        assert json.loads(paths.HOLDER.read_text())["pid"] == os.getpid()


def test_no_password_of_an_override_is_kept_or_shown(workspace: Path) -> None:
    command = [sys.executable, "-c", HOLD, "-S", "tracking.uri=http://ann:pa55@h:5000"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
        wait_until_held(other)
        with pytest.raises(WorkspaceBusyError, match=r"-S tracking\.uri=http://\*\*\*@h:5000`"), exclusive():
            pytest.fail("two processes hold the workspace")
        other.kill()
    assert all("pa55" not in file.read_text() for file in paths.STATE.iterdir())


def test_a_failed_run_frees_the_workspace(workspace: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive():
        _ = 1 / 0
    with python(TRY) as other:
        assert other.communicate(timeout=60)[0] == "held\n"


def test_a_process_may_hold_the_workspace_twice(workspace: Path) -> None:
    with exclusive():
        with exclusive():
            pass
        with python(TRY) as other:  # the inner one has not freed it
            assert f"process {os.getpid()} " in other.communicate(timeout=60)[0]
    with exclusive():
        pass


def test_another_thread_of_the_holder_may_hold_the_workspace_too(workspace: Path) -> None:
    held: list[bool] = []

    def hold() -> None:
        with exclusive():
            held.append(True)

    with exclusive():
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join(20)
    assert held == [True]


def test_two_workspaces_do_not_exclude_each_other(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with exclusive():
        (workspace / "other").mkdir()
        monkeypatch.chdir(workspace / "other")
        with exclusive(), python(TRY) as other:
            assert "is running in this workspace" in other.communicate(timeout=60)[0]


def test_processes_with_the_same_pid_exclude_each_other(workspace: Path) -> None:
    """Two containers that share a workspace: both mains have process id 1."""
    with python(AS_PID_1 + HOLD) as first:
        wait_until_held(first)
        with python(AS_PID_1 + TRY) as second:
            assert "is running in this workspace" in second.communicate(timeout=60)[0]


@pytest.mark.skipif(
    not namespaces_permitted(),
    reason="needs unshare and the right to make a namespace of process ids",
)
def test_first_processes_of_two_namespaces_exclude_each_other(workspace: Path) -> None:
    show = "import os; assert os.getpid() == 1\n"
    with python(show + HOLD, *NAMESPACE) as first:
        wait_until_held(first)
        with python(show + TRY, *NAMESPACE) as second:
            assert "process 1 " in second.communicate(timeout=60)[0]


def test_a_full_disk_under_the_name_of_the_holder_refuses_no_command(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(lock, "write_holder", full)
    with exclusive(), python(TRY) as other:
        assert "is running in this workspace" in other.communicate(timeout=60)[0]


def test_a_lock_that_is_a_link_is_not_followed(workspace: Path) -> None:
    paths.STATE.mkdir()
    precious = workspace / "precious"
    precious.write_text("content")
    for name in ("lock", "holder.json"):
        (paths.STATE / name).symlink_to(precious)
    with pytest.raises(ConfigError, match=r"lock: cannot be locked"), exclusive():
        pytest.fail("a link was locked")
    (paths.STATE / "lock").unlink()
    with exclusive():
        assert not paths.HOLDER.is_symlink()
    assert precious.read_text() == "content"


@pytest.mark.parametrize("in_place_of", [paths.STATE, paths.LOCK])
def test_a_workspace_that_cannot_be_written_is_refused(workspace: Path, in_place_of: Path) -> None:
    """(Permissions stop no root, so something else is where the folder or the lock is to be.)"""
    in_place_of.parent.mkdir(exist_ok=True)
    if in_place_of == paths.STATE:
        in_place_of.write_text("")
    else:
        in_place_of.mkdir()
    with (
        pytest.raises(ConfigError, match=rf"{in_place_of}: cannot be locked: .*; remove what is in its place"),
        exclusive(),
    ):
        pytest.fail("nothing holds the workspace")


@pytest.mark.parametrize("text", ["", "[]", '{"pid"', '{"pid": 1}'])
def test_a_holder_file_that_is_incomplete_names_no_one(holder: subprocess.Popen[str], text: str) -> None:
    paths.HOLDER.write_text(text)
    with pytest.raises(WorkspaceBusyError, match="is running in this workspace"), exclusive():
        pytest.fail("two processes hold the workspace")
