"""Stages that not every workspace has a use for. DVC sees them from their first use on.

A `.dvcignore` beside the dvc.yaml of such a stage hides it: `dvc status`, `dvc checkout` and `dvc pull` then report
nothing about what was never to be made.
"""

from __future__ import annotations

from pathlib import Path

from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.files import write_text

HIDDEN = "# Hides these stages from DVC while they are not used. Their first use removes this file.\ndvc.yaml\n"


def show_used_stages(params: Params, comparing: bool = False) -> None:
    """Let DVC see the stages of the embedded inputs only while they are used, and `compare` from its first use on.

    Args:
        comparing: whether the stage `compare` is used now.
    """
    used = {
        paths.CORPUS_PIPELINE: Path(params.data.path) == paths.EMBEDDED,
        paths.BASE_PIPELINE: Path(params.model.path) == paths.BASE_MODEL,
    }
    for pipeline, is_used in used.items():
        if is_used:
            _show(pipeline)
        elif pipeline.exists():
            hide(pipeline)
    if comparing or paths.COMPARE_PIPELINE.with_name("dvc.lock").exists():
        _show(paths.COMPARE_PIPELINE)


def hide(pipeline: Path) -> None:
    """Hide the stages of a dvc.yaml from DVC, unless a .dvcignore beside it says already what to ignore."""
    if not (ignored := _beside(pipeline)).exists():
        write_text(ignored, HIDDEN)


def _show(pipeline: Path) -> None:
    ignored = _beside(pipeline)
    if ignored.exists() and "dvc.yaml" in ignored.read_text(encoding="utf-8").splitlines():
        ignored.unlink()


def _beside(pipeline: Path) -> Path:
    return pipeline.with_name(".dvcignore")
