"""A clone of the project as DVC sees it, with small files in place of results, and DVC's command line."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from dvc.cli import main
from dvc.repo import Repo, lock_repo

from tasks.workspace.dvc_stages import stages_in_order

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
    """Make the current folder a clone in which nothing was run; a line stands for each part of the code."""
    for name in FILES:
        if (PROJECT / name).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, name)
    for part in set(re.findall(r"- ((?:flows|tasks|velocitune_core)/\S+)", "".join(map(_stages_of, FILES)))):
        file = Path(part if part.endswith(".py") else f"{part}/all.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {part}")
    git("init", "--quiet")
    save("start")


def _stages_of(name: str) -> str:
    return Path(name).read_text() if name.endswith("dvc.yaml") else ""


def save(message: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", message)


def pretend(goal: str = "report") -> list[str]:
    """Commit all stages up to `goal` to DVC, with small files as their outputs; return their addresses."""
    addresses = stages_in_order(goal)
    with Repo(".") as repo, lock_repo(repo):
        stages = [repo.stage.get_target(each) for each in addresses]
        for out in [Path(out.fs_path) for stage in stages for out in stage.outs]:
            write_output(out)
        for stage in stages:
            stage.save(run_cache=False)
            stage.commit()
        for file in {str(stage.dvcfile): stage.dvcfile for stage in stages}.values():  # once, as it takes DVC long
            file.dump_stages([each for each in stages if each.dvcfile == file], update_pipeline=False)
    return addresses


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
