"""One run at a time in a workspace, and the command line of a stage."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tasks import paths


class WorkspaceBusyError(RuntimeError):
    """Another run is at work in this workspace."""


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the workspace for this process. The system lets go of it when the process dies, however it dies.

    Raises WorkspaceBusyError naming the process that holds it.
    """
    paths.STATE.mkdir(exist_ok=True)
    with (paths.STATE / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise WorkspaceBusyError(f"a run is going in this workspace already: {lock.read().strip()}") from None
        lock.truncate(0)
        command = " ".join([*sys.orig_argv[:1], *sys.orig_argv[1:]])
        holder = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
        lock.write(json.dumps(holder))
        lock.flush()
        yield


def run_stage(stage: Callable[[], object]) -> None:
    """Command line of a stage: check everything, hold the workspace, run; exit status 2 for what the user can fix."""
    from tasks.preflight import checked_params

    try:
        checked_params()
        with exclusive():
            stage()
    except (ValueError, WorkspaceBusyError) as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(2)
