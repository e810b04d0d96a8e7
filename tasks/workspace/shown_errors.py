"""Errors that say all that a user needs, so that they are shown without a traceback."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.workspace.lock import WorkspaceBusyError

OURS = ("tasks.", "velocitune_core.")  # modules whose RuntimeErrors say what failed and what to do


@dataclass(frozen=True)
class Shown:
    """What is shown of an error, and the exit status of a command that it ends."""

    message: str
    status: int


def shown_to_user(error: Exception) -> Shown | None:
    """Return what to show of an error that the user can fix (status 2), or of a run that failed (1); None of others."""
    if isinstance(error, (ValueError, WorkspaceBusyError)):
        return Shown(str(error), 2)
    if type(error).__module__ == "dvc.lock":
        return Shown(f"another command of DVC is at work in this folder; wait until it ends:\n{error}", 2)
    if not (isinstance(error, RuntimeError) and type(error).__module__.startswith(OURS)):
        return None
    reasons = [error] if error.__cause__ is None else [error, error.__cause__]
    return Shown("\n".join(map(str, reasons)), 1)
