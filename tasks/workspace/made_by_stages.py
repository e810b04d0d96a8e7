"""What the pipeline makes, and may therefore not start from: DVC would find a cycle of stages, after half a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tasks.workspace import paths

PIPELINES = (paths.PIPELINE, paths.CORPUS_PIPELINE, paths.BASE_PIPELINE, paths.COMPARE_PIPELINE)


def made_by_a_stage(path: Path, *, apart_from: Path | None = None) -> str | None:
    """Return how what the pipeline is to start from depends on what it makes; None if it does not.

    It does where a stage makes the folder, or something around it or in it.

    Args:
        apart_from: what a stage makes only if the settings name exactly that.
    """
    where = path.resolve()
    for maker, out in [*_outs(), ("runs of the pipeline", paths.RUNS)]:
        made = out.resolve()
        if apart_from is not None and made == apart_from.resolve():
            continue
        if where.is_relative_to(made):
            return f"{path} is made by {maker}"
        if made.is_relative_to(where):
            return f"{path} contains {out}, which is made by {maker}"
    return None


def _outs() -> list[tuple[str, Path]]:
    """Return what DVC's stages make, each with its stage."""
    found = []
    for file in PIPELINES:
        if file.is_file():
            stages: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")).get("stages") or {}
            for name, stage in stages.items():
                outs = [next(iter(each)) if isinstance(each, dict) else each for each in stage.get("outs", [])]
                found += [(f"the stage `{name}`", file.parent / stage.get("wdir", ".") / out) for out in outs]
    return found
