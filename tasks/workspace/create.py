"""A workspace in another folder than the project's, for `--workspace`: a second mixture beside the first.

The pipeline works in the current folder. A workspace elsewhere links to the project's code and holds copies of its
stages, which are brought up to date whenever a command is given for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir
from itertools import count
from pathlib import Path
from typing import NoReturn

import velocitune_core
from tasks.workspace import paths
from tasks.workspace.lock import exclusive
from tasks.workspace.writable import writing_in
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
DVC_SETTINGS = "[core]\n    analytics = false\n"
WITHOUT_GIT = "    no_scm = true\n"
OF_CLONE = "pyproject.toml"  # a workspace may have one, too, as `uv init` makes it, but beside links to the code
OF_GIT = {".git", ".gitignore"}
IGNORED = """\
# What git does not keep: what is made, and what DVC keeps. Commit the rest, for `dvc exp`.
.venv
__pycache__/
/.dvc/config.local
/.dvc/tmp
/.dvc/cache
.velocitune/
.prefect-home/
/archives/
/runs/
/mlflow.db*
/mlartifacts/
/prepared
/report
/results/
/comparison/report
/data/embedded
/models/*
!/models/*.dvc
/dvc_plots
"""


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
    ValueError for a folder that is no workspace and holds no params.yaml, or cannot be written, and WorkspaceBusyError
    if the stages have changed while a run is using them.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workspace: {folder} is not a folder")
    if not _is_ours(folder):
        if (folder / ".dvc").exists() and (folder / paths.PIPELINE).exists():
            return
        content = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if (content - OF_GIT) and (paths.PARAMS.name not in content or content & {*CODE, *FILES, ".dvc"}):
            raise ValueError(
                f"--workspace: {folder} is neither empty nor a workspace; name a new folder, or one that holds just "
                f"{paths.PARAMS} and data"
            )
        with writing_in(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / DVC_CONFIG, DVC_SETTINGS if _in_git(folder) else DVC_SETTINGS + WITHOUT_GIT)
    with chdir(folder), writing_in(folder):
        if not Path(".gitignore").exists():
            write_text(Path(".gitignore"), IGNORED)
        FORMER.unlink(missing_ok=True)
        if outdated := [name for name in (*CODE, *FILES) if not _is_current(Path(name))]:
            with exclusive():
                for name in outdated:
                    _renew(Path(name))


def _is_ours(folder: Path) -> bool:
    config = folder / DVC_CONFIG
    links = [(folder / name).is_symlink() for name in CODE]
    if not config.is_file() or ((folder / OF_CLONE).exists() and not any(links)):
        return False
    ours = (DVC_SETTINGS, DVC_SETTINGS + WITHOUT_GIT)  # or else changed by the user
    return config.read_text(encoding="utf-8") in ours or all(links)


def _in_git(folder: Path) -> bool:
    """Return whether a folder lies in a git repository that does not ignore it."""
    if shutil.which("git") is None:
        return False
    asked = ["git", "-C", str(folder), "check-ignore", "--quiet", str(paths.PIPELINE)]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 1  # 0: ignored; 128: no repository


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
    if path.exists() and not path.is_symlink():  # a copy, as of a workspace that was copied; it may have been edited
        aside = next(each for number in count(1) if not (each := Path(f"{path}.replaced-{number}")).exists())
        path.rename(aside)
        sys.stderr.write(f"{path} is a link to the code again; what was there is now {aside.absolute()}\n")
    path.unlink(missing_ok=True)
    path.symlink_to(source, target_is_directory=True)
