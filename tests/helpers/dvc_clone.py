"""A clone of the project as DVC sees it, with small files in place of results, and DVC's command line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from dvc.cli import main
from dvc.repo import Repo

from tasks.workspace.dvc_stages import commit, stages_in_order

PROJECT = Path(__file__).parents[2]
FILES = (
    ".dvc/config",
    ".dvc/plots/by_domain.json",
    ".dvcignore",
    ".gitignore",
    "params.yaml",
    "dvc.yaml",
    "data/.gitignore",
    "models/.gitignore",
    "results/.gitignore",
    "comparison/.dvcignore",
    "comparison/.gitignore",
    "comparison/dvc.yaml",
    "inputs/archives.txt",
    "inputs/base/dvc.yaml",
    "inputs/corpus/dvc.yaml",
)


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout


def make_clone() -> None:
    """Make the current folder a clone in which nothing was run; its code is that of the project."""
    for name in FILES:
        if (PROJECT / name).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, name)
    for name in ("flows", "tasks", "velocitune_core"):
        Path(name).symlink_to(PROJECT / name)
    git("init", "--quiet")
    save("start")


def save(message: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", message)


def pretend(goal: str = "report") -> list[str]:
    """Commit all stages up to `goal` to DVC, with small files as their outputs; return their addresses."""
    stages = stages_in_order(goal)
    for address in stages:
        with Repo(".") as repo:
            outs = [Path(out.fs_path) for out in repo.stage.get_target(address).outs]
        for out in outs:
            write_output(out)
        assert commit(address, lambda: True)
    return stages


def write_output(out: Path) -> None:
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix:
        out.write_text("{}")
    else:
        out.mkdir()
        (out / "manifest.json").write_text(out.name)  # which stages depend on


def dvc(*arguments: str) -> int:
    """Run DVC's command line in this process, which has imported it; return its exit status."""
    return main(list(arguments))
