"""The settings of params.yaml before a command's overrides: they return unless the command finishes.

A command that finishes leaves its overrides, as `dvc exp run -S` does, since they made the results that are there.
`.velocitune/own-settings.json` has what the file held before, so that the next command can put it back after a kill.
"""

from __future__ import annotations

import json
import os
import stat

from tasks.workspace import paths
from tasks.workspace.command_end import CommandEnd, say, when_command_ends
from tasks.workspace.taken_back import REMOVED, Settings, without_overrides
from velocitune_core.config import without_credentials
from velocitune_core.files import write_text

IN_STAGE_OF_DVC = "DVC_STAGE"  # variable that DVC sets for what it runs


def keep_own_settings(overridden: str) -> None:
    """Keep what params.yaml holds, before `overridden` is written into it, until the command ends.

    A second call in a command keeps what the first one did.
    """
    own, here = _kept(), paths.PARAMS.read_bytes().decode()
    before = own["before"] if own else here
    if before != overridden:
        paths.STATE.mkdir(exist_ok=True)
        content = {"before": before, "overridden": overridden}
        write_text(paths.OWN_SETTINGS, json.dumps(content), mode=_mode())  # first, so that no kill comes between
        when_command_ends(_end)


def write_params(text: str) -> None:
    """Write params.yaml, in the place that a link leads to, with the permissions that it has."""
    write_text(paths.PARAMS.resolve(), text, mode=_mode())


def return_own_settings(of: str, *, refused: bool = False) -> None:
    """Put back what params.yaml held before the overrides of a command; in an edited file, the edit stays.

    In a stage that DVC runs, which has read the file before, they stay; for good if it finishes, as its results are
    those of this file. Call it while holding the workspace.

    Args:
        of: which command, for the message.
        refused: whether its settings are unusable, so that there is nothing to continue.
    """
    own = _kept()
    if own is None:
        return
    if IN_STAGE_OF_DVC in os.environ:
        when_command_ends(_end)
        return
    try:
        now = paths.PARAMS.read_bytes().decode()
    except (OSError, ValueError):
        now = own["before"]  # removed, or no text: there is nothing to put back into
    if now == own["overridden"]:
        text, stay = own["before"], Settings()
    else:
        text, stay = without_overrides(own["before"], own["overridden"], now)
    if text != now:
        write_params(text)
    paths.OWN_SETTINGS.unlink(missing_ok=True)
    if text != now:
        why = "as they are refused" if refused else "as it did not finish"
        edited = "" if text == own["before"] else "; what was edited meanwhile stays"
        then = "" if refused else "; the same command, or a deployment with the same parameters, continues it"
        say(f"{paths.PARAMS}: the settings of {of} are taken back, {why}{edited}{then}\n")
    if stay:
        say(f"{paths.PARAMS} was edited meanwhile: of {of}, {_shown(stay)} could not be taken back; check the file\n")


def _shown(settings: Settings) -> str:
    found = (f"{key}: {'(removed)' if value is REMOVED else value}" for key, value in settings.items())
    return without_credentials(", ".join(found))


def _mode() -> int:
    """Return the permissions of params.yaml: one with a password may be its owner's alone, and so are its copies."""
    return stat.S_IMODE(paths.PARAMS.stat().st_mode)


def _end(end: CommandEnd) -> None:
    if end == "finished":
        paths.OWN_SETTINGS.unlink(missing_ok=True)
    else:
        return_own_settings("this run")


def _kept() -> dict[str, str] | None:
    try:
        own = json.loads(paths.OWN_SETTINGS.read_text(encoding="utf-8"))
        return {key: str(own[key]) for key in ("before", "overridden")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
