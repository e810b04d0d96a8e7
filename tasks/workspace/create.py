"""A workspace in another folder than the project's, for `--workspace`: a second mixture beside the first.

The pipeline works in the current folder. A workspace elsewhere links to the project's code and holds copies of its
stages, which are brought up to date whenever a command is given for it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import NoReturn

import velocitune_core
from tasks.workspace import paths
from tasks.workspace.lock import exclusive
from velocitune_core.files import write_text

PROJECT = Path(__file__).resolve().parents[2]  # a clone, or the template in an installed velocitune_core
CODE = ("flows", "tasks", "velocitune_core")
FILES = (
    ".dvcignore",
    ".dvc/plots/by_domain.json",
    "dvc.yaml",
    str(paths.COMPARE_PIPELINE),
    str(paths.CORPUS_PIPELINE),
    str(paths.BASE_PIPELINE),
    str(paths.ARCHIVE_LIST),
    "prefect.toml",
    "prefect.yaml",
)
FORMER = Path("inputs/dvc.yaml")  # declared the stages of both inputs, which two files may not
DVC_CONFIG = Path(".dvc/config")
DVC_SETTINGS = "[core]\n    analytics = false\n    no_scm = true\n"  # git may ignore the folder


def run_in(workspace: Path, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the same command, with these arguments, started in `workspace`.

    (A new program, because Prefect reads its settings from the folder that it is imported in.) Raises what
    `make_workspace` raises.
    """
    make_workspace(workspace)
    interpreter = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]  # up to `-m flows.<name>`
    sys.stderr.flush()
    os.chdir(workspace)
    os.execv(sys.executable, [*interpreter, "--workspace", ".", *arguments])


def make_workspace(folder: Path) -> None:
    """Make `folder` a workspace, or bring the stages of one that was made before up to date with the project.

    A folder with a `dvc.yaml` and a DVC repository of its own, such as another clone, is left as it is. Raises
    ValueError for a folder that is no workspace and holds no params.yaml, and WorkspaceBusyError if the stages have
    changed while a run is using them.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workspace: {folder} is not a folder")
    if not _is_ours(folder):
        if (folder / ".dvc").exists() and (folder / paths.PIPELINE).exists():
            return
        content = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if content and (paths.PARAMS.name not in content or content & {*CODE, *FILES, ".dvc"}):
            raise ValueError(
                f"--workspace: {folder} is neither empty nor a workspace; name a new folder, or one that holds just "
                f"{paths.PARAMS} and data"
            )
        write_text(folder / DVC_CONFIG, DVC_SETTINGS)
    with chdir(folder):
        FORMER.unlink(missing_ok=True)
        if outdated := [name for name in (*CODE, *FILES) if not _is_current(Path(name))]:
            with exclusive():
                for name in outdated:
                    _renew(Path(name))


def _is_ours(folder: Path) -> bool:
    config = folder / DVC_CONFIG
    return config.is_file() and config.read_text(encoding="utf-8") == DVC_SETTINGS


def _is_current(path: Path) -> bool:
    source = _source(path)
    if source.is_dir():
        return path.is_symlink() and path.resolve() == source
    return path.is_file() and path.read_bytes() == source.read_bytes()


def _source(path: Path) -> Path:
    if path == Path("velocitune_core"):
        return Path(velocitune_core.__file__).resolve().parent
    return PROJECT / path


def _renew(path: Path) -> None:
    source = _source(path)
    if not source.is_dir():
        write_text(path, source.read_text(encoding="utf-8"))
        return
    if path.is_symlink():
        path.unlink()
    elif path.exists():  # a copy that an earlier version made
        shutil.rmtree(path)
    path.symlink_to(source, target_is_directory=True)
