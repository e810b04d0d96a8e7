"""Whether a stage is up to date, under a real DVC."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from tasks.workspace.dvc_stages import commit, is_up_to_date, repository

ADDRESSES = {"train": "train", "report": "report", "compare": "comparison/dvc.yaml:compare"}


@pytest.fixture
def toy(workspace: Path) -> dict[str, Any]:
    """A workspace of stages that are all committed, and its settings."""
    Repo.init(no_scm=True).close()
    settings = {"strategy": {"name": "velocitune"}, "compare": {"runs": {"a": {"strategy": "static"}}}}
    write(settings)
    stages = {name: {"cmd": "true", "outs": [f"{name}.txt"]} for name in ADDRESSES}
    Path("comparison").mkdir()
    Path("comparison/dvc.yaml").write_text(yaml.safe_dump({"stages": {"compare": stages.pop("compare")}}))
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for name, folder in {"train": ".", "report": ".", "compare": "comparison"}.items():
        (Path(folder) / f"{name}.txt").write_text(name)
        assert commit(ADDRESSES[name], lambda: True)
    return settings


def write(settings: dict[str, Any]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(settings))


def up_to_date() -> set[str]:
    return {name for name, address in ADDRESSES.items() if is_up_to_date(address)}


def test_a_committed_stage_is_up_to_date_until_its_output_changes(toy: dict[str, Any]) -> None:
    assert up_to_date() == {"train", "report", "compare"}
    Path("report.txt").write_text("edited")
    assert up_to_date() == {"train", "compare"}


def test_a_stage_with_a_strategy_of_the_users_own_always_runs(toy: dict[str, Any]) -> None:
    write({**toy, "strategy": {"name": "mine:Mine"}})
    assert up_to_date() == {"report", "compare"}
    write({**toy, "compare": {"runs": {"a": {"strategy": "static"}, "b": {"strategy": "mine:Mine"}}}})
    assert up_to_date() == {"train", "report"}
    write({**toy, "compare": None})
    assert up_to_date() == {"train", "report", "compare"}


def test_a_stage_that_trains_a_sibling_elsewhere_always_runs(toy: dict[str, Any], settings: dict[str, Any]) -> None:
    swarm = {"model": "models/mine/sibling"}
    plan = {"strategy": "planned", "options": {"swarm": swarm}}
    compare = {"runs": {"static": {"strategy": "static"}, "plan": plan}}
    assert toy
    write({**settings, "compare": compare})
    assert up_to_date() == {"train", "report", "compare"}
    swarm["model"] = "models/small"
    write({**settings, "compare": compare})
    assert up_to_date() == {"train", "report"}


def test_another_command_of_dvc_is_waited_for(toy: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """As `dvc repro`, which has the locks of a stage's outputs until the stage is refused."""
    assert toy
    Path("train.txt").write_text("made again")
    held = "from pathlib import Path; import time; from dvc.repo import Repo; from dvc.rwlock import rwlock\n"
    held += "repo = Repo()\n"
    held += "with rwlock(repo.tmp_dir, repo.fs, 'dvc repro', [], [str(Path('train.txt').absolute())], False):\n"
    held += "    print('held', flush=True); time.sleep(3)"
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert commit("train", lambda: True)
        assert other.wait(20) == 0
    assert [each.getMessage().partition(":")[0] for each in caplog.records if each.name.endswith("dvc_stages")] == [
        "waiting for another command of DVC in this folder"
    ]
    assert up_to_date() == {"train", "report", "compare"}


def test_an_archive_without_git_works_without_git(toy: dict[str, Any]) -> None:
    Path(".dvc/config").write_text("[core]\n    analytics = false\n")  # as in this project: with git
    with repository() as repo:
        assert str(repo.stage.get_target("train").addressing) == "train"
    assert up_to_date() == {"train", "report", "compare"}


def test_data_that_dvc_does_not_watch_make_prepare_stale(toy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.workspace.dvc_stages.read_params", lambda: None)
    monkeypatch.setattr("tasks.workspace.dvc_stages.unwatched_files_changed", lambda params: True)
    assert not is_up_to_date("prepare")
