"""One run at a time in a workspace: a lock on the folder `.velocitune`, and the name of who holds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, Timeout

from tasks.workspace import paths
from tasks.workspace.command_end import command_ended, end_by
from tasks.workspace.home import share_runs
from tasks.workspace.own_settings import IN_STAGE_OF_DVC, return_own_settings
from tasks.workspace.prefect_servers import end_servers_of_killed_runs
from tasks.workspace.writable import writing_in
from velocitune_core.config import ConfigError, shown_command
from velocitune_core.files import describe_holder, write_holder
from velocitune_core.train.system_lock import system_lock


class WorkspaceBusyError(RuntimeError):
    """Another run holds this workspace."""


def check_workspace() -> None:
    """Raise ConfigError if the current folder is no workspace, before anything is written into it."""
    if not paths.PARAMS.exists():
        raise ConfigError(
            f"{paths.PARAMS}: no such file in {Path.cwd()}; give the command in the project's folder, or name a "
            "workspace with --workspace DIR"
        )


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the workspace (the current folder) for this process; the system frees it when the process ends in any way.

    A process that holds the workspace may take it again, from any thread; its command ends when it lets go. Raises
    WorkspaceBusyError, which names the holder, if another process has it, and ConfigError if it cannot be locked.
    """
    lock = _lock()
    try:
        with writing_in(paths.STATE):
            lock.acquire()
    except Timeout:
        holder = describe_holder(paths.HOLDER) or "another run"  # it has only just started
        raise WorkspaceBusyError(f"{holder} is running in this workspace; wait until it ends, or stop it") from None
    try:
        if lock.lock_counter == 1:
            with suppress(OSError):  # on a full disk the holder stays unnamed
                write_holder(paths.HOLDER, shown_command(sys.orig_argv))
            end_servers_of_killed_runs()
            return_own_settings("a run that was killed")
            share_runs()
        yield
    finally:
        if lock.lock_counter == 1:
            if isinstance(sys.exception(), ConfigError):
                return_own_settings("this run", refused=True)  # the same settings would be refused again
            command_ended(end_by(sys.exception()))
        lock.release()


def return_settings_of_killed() -> None:
    """Put back what a killed command has overridden in params.yaml, before it is read; one that goes on keeps it."""
    if paths.OWN_SETTINGS.exists() and IN_STAGE_OF_DVC not in os.environ:
        with suppress(WorkspaceBusyError), exclusive():  # which does it
            pass


def is_held() -> bool:
    """Return whether this process holds the workspace."""
    return paths.STATE.is_dir() and _lock().is_locked


def _lock() -> BaseFileLock:
    """Return the one lock object of this folder and process: it counts how often the process holds the workspace."""
    return system_lock(paths.LOCK.absolute(), timeout=0, is_singleton=True)
