"""Prefect's profile of a workspace while its servers run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from velocitune_core.files import write_text

PROFILE = "velocitune-serving"  # of Prefect, active while this runs


@contextmanager
def active_profile(api: str) -> Iterator[None]:
    """Make Prefect's active profile name the server `api`, for all commands in this folder."""
    profiles = Path(os.environ["PREFECT_HOME"]) / "profiles.toml"
    kept = profiles.with_name("profiles-before.toml")  # also if this program is killed
    if profiles.exists() and PROFILE not in (before := profiles.read_text(encoding="utf-8")):
        write_text(kept, before)
    ours = f'active = "{PROFILE}"\n\n[profiles.{PROFILE}]\nPREFECT_API_URL = "{api}"\n'
    write_text(profiles, ours)
    try:
        yield
    finally:
        if profiles.exists() and profiles.read_text(encoding="utf-8") == ours:  # or the user has edited it since
            profiles.unlink()
            if kept.exists():
                kept.replace(profiles)
