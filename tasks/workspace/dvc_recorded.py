"""What the lock files of DVC say of the files that are here: entries of stages that were not committed are left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.workspace import paths
from tasks.workspace.params_file import params_tree

LOCKS = (Path("inputs/corpus/dvc.lock"), Path("inputs/base/dvc.lock"), Path("dvc.lock"))
Entries = dict[str, dict[str, Any]]  # by stage, as in a lock file


def recorded_stages() -> dict[Path, Entries]:
    """Return the entries of each lock file that are true of this run: by outputs, dependencies, and its settings.

    A stage that ran and was not committed keeps the entry of an earlier run, with the hashes of other files. No lock of
    DVC is taken, so a stage that `dvc repro` runs can call this. Empty outside of a DVC repository.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.stage import PipelineStage

    from tasks.workspace.dvc_stages import repository

    entries = {lock: _entries(lock) for lock in LOCKS if lock.exists()}
    if not any(entries.values()):
        return entries
    tree = params_tree()
    try:
        with repository() as repo:
            stages = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
            true = {(_lock_of(stage), stage.name) for stage in stages if _is_true(entries, stage, tree)}
    except NotDvcRepoError:
        true = set()
    return {
        lock: {name: entry for name, entry in stages.items() if (lock, name) in true}
        for lock, stages in entries.items()
    }


def _entries(lock: Path) -> Entries:
    return (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages") or {}


def _lock_of(stage: Any) -> Path:
    """Return the lock file of a stage, relative to this folder."""
    lock = Path(stage.path).with_name("dvc.lock")
    return lock.relative_to(Path.cwd()) if lock.is_relative_to(Path.cwd()) else lock


def _is_true(entries: Mapping[Path, Entries], stage: Any, tree: Any) -> bool:
    """Return whether a stage of DVC has an entry, and that is of the files and settings of this run."""
    entry = entries.get(_lock_of(stage), {}).get(stage.name)
    return entry is not None and _same_settings(entry, tree) and _same_files(stage)


def _same_files(stage: Any) -> bool:
    """Return whether outputs and dependencies have the hashes of the lock file."""
    from dvc.dependency import ParamsDependency

    files = [each for each in [*stage.outs, *stage.deps] if not isinstance(each, ParamsDependency)]
    return all(each.exists and not each.changed_checksum() for each in files)


def _same_settings(entry: Mapping[str, Any], tree: Any) -> bool:
    """Return whether an entry has the settings of this run, which are not those of the file if that was edited."""
    return all(_value(tree, key) == value for key, value in entry.get("params", {}).get(str(paths.PARAMS), {}).items())


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
