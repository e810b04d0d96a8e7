"""Checkpoints by their names; needs no torch, which launchers do not import."""

from __future__ import annotations

from pathlib import Path

PREFIX = "step-"


def saved_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, newest first; whether they are valid is not looked at."""
    named = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(named, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix(PREFIX))
