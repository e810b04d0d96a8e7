"""Stages that not every workspace has a use for, hidden from DVC where they are not used.

A `.dvcignore` beside the dvc.yaml of such a stage hides it: `dvc status`, `dvc checkout` and `dvc pull` then report
nothing about what was never to be made. A fresh clone hides nothing, so that `dvc repro` finds every stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.workspace import paths
from velocitune_core.files import write_text

HIDDEN = "# Hides these stages from DVC while they are not used. Their first use removes this file.\ndvc.yaml\n"


def show_used_stages(settings: Any, *, comparing: bool = False, reporting: bool = False) -> None:
    """Hide the stages of the embedded inputs, and `compare`, from DVC unless they are used.

    Args:
        settings: tree of params.yaml.
        comparing: whether the stage `compare` is used now.
        reporting: whether the stages end with `report`, which hides `compare` unless there was a comparison. No stage
            before it does: they may be part of `dvc repro comparison/dvc.yaml`.
    """
    made = {"data": (paths.EMBEDDED, paths.CORPUS_PIPELINE), "model": (paths.BASE_MODEL, paths.BASE_PIPELINE)}
    for section, (output, pipeline) in made.items():
        path = (settings.get(section) or {}).get("path")
        if path is not None and Path(path) == output:
            _show(pipeline)
        elif path is not None and pipeline.exists():
            hide(pipeline)
    if comparing or paths.COMPARE_PIPELINE.with_name("dvc.lock").exists():
        _show(paths.COMPARE_PIPELINE)
    elif reporting and paths.COMPARE_PIPELINE.exists():
        hide(paths.COMPARE_PIPELINE)


def hide(pipeline: Path) -> None:
    """Hide the stages of a dvc.yaml from DVC."""
    if "dvc.yaml" not in (lines := _ignored(pipeline)):
        write_text(_beside(pipeline), "\n".join([*lines, HIDDEN]))


def _show(pipeline: Path) -> None:
    """Show the stages to DVC again. What a user ignores beside them stays ignored."""
    if "dvc.yaml" not in (lines := _ignored(pipeline)):
        return
    if own := [line for line in lines if line not in HIDDEN.splitlines()]:
        write_text(_beside(pipeline), "\n".join([*own, ""]))
    else:
        _beside(pipeline).unlink()


def _ignored(pipeline: Path) -> list[str]:
    """Return the lines of the .dvcignore beside a dvc.yaml, if there is one."""
    file = _beside(pipeline)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _beside(pipeline: Path) -> Path:
    return pipeline.with_name(".dvcignore")
