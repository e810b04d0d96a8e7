"""One run at a time in a workspace: a lock on the folder `.velocitune`, and the name of who holds it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from tasks.workspace import paths
from tasks.workspace.prefect_servers import end_servers_of_killed_runs
from velocitune_core.files import write_text


class WorkspaceBusyError(RuntimeError):
    """Another run holds this workspace."""


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the workspace (the current folder) for this process; the system frees it when the process ends in any way.

    A process that holds the workspace may take it again, from any thread. Raises WorkspaceBusyError, which names the
    holder, if another process has it.
    """
    paths.STATE.mkdir(exist_ok=True)
    # One lock object per file and process: it counts how often this process holds the workspace.
    lock = FileLock(paths.LOCK.absolute(), timeout=0, thread_local=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise WorkspaceBusyError(f"{_holder()} is running in this workspace; wait until it ends, or stop it") from None
    try:
        if lock.lock_counter == 1:
            _write_holder()
            end_servers_of_killed_runs()
        yield
    finally:
        lock.release()


def _write_holder() -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.orig_argv),
    }
    write_text(paths.HOLDER, json.dumps(holder))


def _holder() -> str:
    """Describe the process that holds the workspace, as far as it has written who it is."""
    try:
        holder = json.loads(paths.HOLDER.read_text(encoding="utf-8"))
        return f"`{holder['command']}` (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just started
        return "another run"
