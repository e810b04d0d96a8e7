"""A workspace of its own for the large mixture: `python -m tasks.workspace.large <folder>`.

The pipeline works in the current folder. So that its second mixture leaves the first alone, the code and the stages are
copied into another folder, with large/params.yaml as its params.yaml. What was made there before stays.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import chdir
from pathlib import Path

from tasks.workspace.lock import WorkspaceBusyError, exclusive
from velocitune_core.files import write_text

PROJECT = Path(__file__).resolve().parents[2]
CODE = ("flows", "tasks", "velocitune_core")
FILES = (".dvcignore", "dvc.yaml", "comparison/dvc.yaml", "inputs/dvc.yaml", "inputs/archives.txt", "prefect.toml")
SETTINGS = {"large/params.yaml": "params.yaml", "large/archives.txt": "large/archives.txt"}
DVC_CONFIG = "[core]\n    analytics = false\n    no_scm = true\n"  # in a folder that git ignores, DVC must not ask git


def make_workspace(folder: Path) -> None:
    """Bring code, stages and settings in `folder` up to date with the project.

    Raises ValueError for a folder that holds something, but no workspace of this kind, and WorkspaceBusyError while a
    run is going there.
    """
    marker = folder / ".dvc/config"
    if folder.exists() and any(folder.iterdir()) and not (marker.exists() and marker.read_text() == DVC_CONFIG):
        raise ValueError(f"{folder}: holds other things; name an empty or a new folder")
    write_text(marker, DVC_CONFIG)
    with chdir(folder), exclusive():
        for name in CODE:
            shutil.rmtree(name, ignore_errors=True)
            shutil.copytree(PROJECT / name, name, ignore=shutil.ignore_patterns("__pycache__"))
        for source, destination in {**{name: name for name in FILES}, **SETTINGS}.items():
            write_text(Path(destination), (PROJECT / source).read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.workspace.large", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    try:
        make_workspace(folder)
    except (ValueError, WorkspaceBusyError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
