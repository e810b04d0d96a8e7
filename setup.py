"""Put into the wheel, as data in `velocitune_core/template`, what workspaces are made of: flows, tasks and stages.

All else of the package is in pyproject.toml. A clone needs no copy: there the template is the clone itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("flows", "tasks")
FILES = (
    ".dvc/plots/by_domain.json",
    ".dvcignore",
    "comparison/dvc.yaml",
    "dvc.yaml",
    "inputs/archives.txt",
    "inputs/base/dvc.yaml",
    "inputs/corpus/dvc.yaml",
    "large/archives.txt",
    "large/medium.yaml",
    "large/model.txt",
    "large/params.yaml",
    "large/small.yaml",
    "params.yaml",
    "prefect.toml",
    "prefect.yaml",
)


class BuildWithTemplate(build_py):
    """Build the package, and in it the template."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source in template_files():
                target = Path(self.build_lib, "velocitune_core/template", source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


def template_files() -> list[Path]:
    """Return the files of the template, relative to the clone."""
    code = [path for folder in FOLDERS for path in sorted(Path(folder).rglob("*.py"))]
    return [*code, *map(Path, FILES)]


setup(cmdclass={"build_py": BuildWithTemplate})
