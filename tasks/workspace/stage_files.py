"""What a stage reads and writes, as dvc.yaml declares it: for `--help`, for a missing file, and for the last line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.workspace import paths
from velocitune_core.config import Params

PROJECT = Path(__file__).resolve().parents[2]


class MissingInputError(ValueError):
    """A file that another stage makes is not there."""


@dataclass(frozen=True)
class StageFiles:
    """Files and folders of a stage, relative to the workspace."""

    reads: dict[str, str]  # path → stage that makes it
    writes: list[str]


def stage_files(stage: str) -> StageFiles:
    """Return the files of a stage; none for a command that is no stage of DVC."""
    stages = _all_stages()
    if stage not in stages:
        return StageFiles({}, [])
    made_by = _made_by(stages)
    needed = [path for path in stages[stage]["deps"] if not path.startswith("$")]
    reads = {path: name for path in needed for out, name in made_by.items() if Path(path).is_relative_to(out)}
    return StageFiles(reads, list(_outputs(stages[stage])))


def check_inputs(stage: str, params: Params) -> None:
    """Raise MissingInputError for the files that other stages make and that are not there, with their commands.

    Among them are the text and the model that the settings name, if they are the embedded ones.
    """
    stages = _all_stages()
    if stage not in stages:
        return
    made_by = _made_by(stages)
    named = {"${data.path}": params.data.path, "${model.path}": params.model.path}
    used = [str(Path(path)) for key, path in named.items() if key in stages[stage]["deps"]]
    reads = {path: made_by[path] for path in used if path in made_by} | stage_files(stage).reads
    missing = {path: name for path, name in reads.items() if not Path(path).exists()}
    if missing:
        lines = [f"  {path}: make it with `python -m flows.{name}`" for path, name in missing.items()]
        raise MissingInputError(
            f"{stage} reads files that are not there; `python -m flows.pipeline` runs all stages in order:\n"
            + "\n".join(lines)
        )


def described(stage: str) -> str:
    """Return what must be there before a stage, and what it makes, for its `--help`."""
    files = stage_files(stage)
    if not files.writes:
        return ""
    reads = ", ".join(f"{path} (python -m flows.{name})" for path, name in files.reads.items())
    before = f"Must be there: params.yaml, its data and model{', ' if reads else ''}{reads}."
    return f"{before} Makes {', '.join(files.writes)}. `python -m flows.pipeline` runs all stages in order."


def how_to_make(path: Path) -> str:
    """Return the command of the stage that makes exactly this file or folder; nothing if none does."""
    name = _made_by(_all_stages()).get(str(path))
    return f"python -m flows.{name}" if name else ""


def _all_stages() -> dict[str, dict[str, Any]]:
    files = [*PROJECT.glob("inputs/**/dvc.yaml"), PROJECT / paths.PIPELINE, PROJECT / paths.COMPARE_PIPELINE]
    return {name: each for file in files if file.exists() for name, each in _stages(file)}


def _made_by(stages: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Return the stage of each output."""
    return {path: name for name, each in stages.items() for path in _outputs(each)}


def _stages(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from yaml.safe_load(file.read_text(encoding="utf-8"))["stages"].items()


def _outputs(stage: dict[str, Any]) -> Iterator[str]:
    for each in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
        yield each if isinstance(each, str) else next(iter(each))
