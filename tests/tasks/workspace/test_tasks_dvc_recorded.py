"""Which entries of a lock file are true of the files and settings that are here, also within a stage of `dvc repro`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from tasks.workspace.dvc_recorded import recorded_stages

STAGE = """
from pathlib import Path
from tasks.workspace.dvc_recorded import recorded_stages

Path("two").mkdir(exist_ok=True)
Path("two/a.txt").write_text(Path("one.txt").read_text())
print(sorted(recorded_stages()[Path("dvc.lock")]), file=open("said.txt", "w"))
"""
STAGES = {
    "one": {"cmd": "cp source.txt one.txt", "deps": ["source.txt"], "params": ["a.b", "c"], "outs": ["one.txt"]},
    "two": {"cmd": f"{sys.executable} stage.py", "deps": ["one.txt"], "outs": ["two"]},
}


def recorded() -> list[str]:
    return sorted(recorded_stages()[Path("dvc.lock")])


@pytest.fixture
def reproduced(workspace: Path) -> Path:
    Repo.init(no_scm=True).close()
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    Path("params.yaml").write_text("a: {b: 1e-3}\nc: [1, 2.5]\n")
    Path("source.txt").write_text("first")
    Path("stage.py").write_text(STAGE)
    with Repo(".") as repo:
        repo.reproduce()
    return workspace


@pytest.mark.usefixtures("reproduced")
def test_a_stage_that_dvc_runs_has_no_entry_of_its_own_run_before() -> None:
    assert Path("said.txt").read_text() == "['one']\n" and recorded() == ["one", "two"]
    Path("source.txt").write_text("second")
    with Repo(".") as repo:
        repo.reproduce()
    assert Path("said.txt").read_text() == "['one']\n" and recorded() == ["one", "two"]


@pytest.mark.usefixtures("reproduced")
def test_an_entry_of_other_files_or_settings_is_left_out() -> None:
    Path("two/b.txt").touch()
    assert recorded() == ["one"]
    Path("two/b.txt").unlink()
    Path("params.yaml").write_text("a: {b: 2e-3}\nc: [1, 2.5]\n")
    assert recorded() == ["two"]
    Path("params.yaml").write_text("a: {b: 1e-3}\nc: [1, 2.5]\n")
    Path("source.txt").unlink()
    assert recorded() == ["two"]
    Path("one.txt").unlink()
    assert recorded() == []


def test_without_a_repository_or_a_lock_file_there_are_none(workspace: Path) -> None:
    assert recorded_stages() == {}
    Path("params.yaml").write_text("a: 1\n")
    Path("dvc.lock").write_text("stages: {one: {cmd: 'true', outs: [{path: a, md5: b}]}}")
    assert recorded_stages() == {Path("dvc.lock"): {}}
