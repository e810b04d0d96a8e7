"""Where a workspace keeps what outlives it: an experiment of `dvc exp run --temp` works in a copy that DVC deletes.

DVC clones the repository into a folder in its `.dvc/tmp/exps`, and names the repository in the variable DVC_ROOT. Runs
and their MLflow store belong to the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

from tasks.workspace import paths

EXPERIMENT = "DVC_EXP_NAME"  # variable with the name of the experiment that a stage runs in


def home() -> Path:
    """Return the workspace that the current folder is a temporary copy of; the current folder if it is none."""
    here, named = Path.cwd(), os.environ.get("DVC_ROOT")
    if not named:
        return here
    repository = Path(named).resolve()
    temporary = repository / ".dvc" / "tmp" / "exps"
    return repository if here.is_relative_to(temporary) else here


def missing_in_copy(path: Path) -> str | None:
    """Return why a path of the settings is missing in a temporary copy of the repository that has it, with the fix.

    None if it is here, or nowhere, or this is no such copy. The path may be a glob.
    """
    repository = home()
    if repository == Path.cwd() or _found(Path.cwd(), path) or not _found(repository, path):
        return None
    if os.path.normpath(path).startswith(".."):
        return f"{path} lies outside of {repository}, and DVC works in a copy of that: give its absolute path"
    return (
        f"{path} is in {repository}, and not in the copy of it that DVC works in, which has what git or DVC tracks: "
        f"`dvc add {path}` there (or `git add`, and commit), and run the experiment again"
    )


def _found(folder: Path, path: Path) -> bool:
    return (folder / path).exists() or (not path.is_absolute() and any(folder.glob(str(path))))


def share_runs() -> None:
    """In a temporary copy, link every finished or unfinished run of the repository."""
    if (repository := home()) != Path.cwd():
        for job in (repository / paths.RUNS).glob("*/job.json"):
            _link(job.parent)


def share_run(folder: Path) -> None:
    """In a temporary copy, make the folder of a new run in the repository, and link it.

    Only folders of runs are shared, which their locks hold: two experiments may pack different data at the same time.
    """
    if (repository := home()) != Path.cwd() and not folder.exists():
        (repository / folder).mkdir(parents=True, exist_ok=True)
        _link(repository / folder)


def _link(run: Path) -> None:
    link = paths.RUNS / run.name
    if not link.exists():
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)  # of a run that is gone
        link.symlink_to(run, target_is_directory=True)
