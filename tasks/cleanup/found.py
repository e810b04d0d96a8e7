"""The folders in `runs/`: how large each is, whose it is, and whether it may be deleted."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.cleanup.present import Present
from tasks.runs.run_folder import REPLACED, run_folder
from tasks.workspace import paths
from velocitune_core.evaluation.evaluation_job import KEY_LENGTH
from velocitune_core.train.extension import common_steps
from velocitune_core.train.job import TrainJob, recipe_of
from velocitune_core.train.run_lock import RunLock

RUN_FOLDER = re.compile(rf"(?P<name>.+)-[0-9a-f]{{{KEY_LENGTH}}}")
OTHER, REPLACED_RUN = "of other settings", "replaced"


@dataclass(frozen=True)
class Found:
    """A folder in `runs/`."""

    path: Path
    size_bytes: int  # a file that several folders share counts in equal parts
    state: str
    finished: bool | None  # None: no run

    def is_freed(self, unfinished: bool) -> bool:
        """Return whether `--delete` removes it.

        Args:
            unfinished: whether `--unfinished` is given.
        """
        return self.state == REPLACED_RUN or (self.state == OTHER and (bool(self.finished) or unfinished))


def found_runs(present: Present) -> list[Found]:
    """Return what lies in `runs/`, the largest first."""
    folders = [path for path in paths.RUNS.glob("*") if path.is_dir() and path != REPLACED]
    found = [_found(path, _state(path, present)) for path in folders]
    found += [_found(path, REPLACED_RUN) for path in REPLACED.glob("*") if path.is_dir()]
    kept = {each.path for each in found if each.state not in {OTHER, REPLACED_RUN}}
    found = [_with_evaluations(each, kept) for each in found]
    return sorted(found, key=lambda each: each.size_bytes, reverse=True)


def delete(path: Path) -> bool:
    """Delete a folder of a run, unless a process runs in it; return whether it is gone."""
    lock = RunLock(path)
    if not lock.acquire():
        return False
    try:
        shutil.rmtree(path)
    finally:
        lock.release()
    return True


def _state(path: Path, present: Present) -> str:
    """Return whose folder it is."""
    named = RUN_FOLDER.fullmatch(path.name)
    if named is None or not (path / "job.json").exists():
        return "no run"
    if path.name in present.jobs:
        return "of the present settings"
    if any(run_folder(job) == path for job in present.jobs.values()):
        return "taken by a run of the present settings"
    if present.undecided is None or named["name"] in present.undecided:
        return "perhaps of the present settings"
    if any(_goes_on_from(job, path) for job in present.jobs.values() if job.name == named["name"]):
        return "continued by a run of the present settings"
    return OTHER


def _goes_on_from(job: object, path: Path) -> bool:
    """Return whether an unfinished run of the present settings may take the checkpoints of another one."""
    if not isinstance(job, TrainJob) or (paths.RUNS / job.folder_name / "result.json").exists():
        return False
    if not any((path / "checkpoints").glob("step-*")):
        return False
    tree = _job_of(path)
    return tree is not None and common_steps(recipe_of(tree), job)[0] > 0


def _with_evaluations(found: Found, kept: set[Path]) -> Found:
    """Return an evaluation of questions as needed if the model that it measured is one that stays."""
    tree = _job_of(found.path) if found.state == OTHER else None
    if tree is None or not tree.get("questions"):
        return found
    model = Path(str(tree.get("model")))
    if not model.is_dir() or (model.is_relative_to(paths.RUNS) and model.parent not in kept):
        return found
    return Found(found.path, found.size_bytes, "of a model that stays", found.finished)


def _job_of(path: Path) -> dict[str, object] | None:
    try:
        tree = json.loads((path / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None


def _found(path: Path, state: str) -> Found:
    is_run = (path / "job.json").exists()
    return Found(path, _size(path), state, (path / "result.json").exists() if is_run else None)


def _size(path: Path) -> int:
    return sum(_sizes(path))


def _sizes(path: Path) -> Iterator[int]:
    for file in path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            stat = file.stat()
            yield stat.st_size // stat.st_nlink
