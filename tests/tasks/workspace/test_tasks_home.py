"""What a temporary copy of the repository lacks is named, and not looked for on a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.workspace.data_folder import source_problems
from tasks.workspace.home import missing_in_copy
from tasks.workspace.model_checks import model_fit
from tasks.workspace.planned_checks import planned_problems
from velocitune_core.config import Params, parse_params


@pytest.fixture
def repository(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository of the current folder, which is a copy of it as `dvc exp run --temp` makes one."""
    for folder in ("data/raw/code.jsonl", "models/mine", "models/small", "added"):
        (workspace / folder).mkdir(parents=True)
    copy = workspace / ".dvc/tmp/exps/standalone/tmp1"
    (copy / "data/raw").mkdir(parents=True)
    (copy / "added").mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(workspace))
    return workspace


@pytest.fixture
def params(settings: dict[str, Any]) -> Params:
    settings["domains"]["code"]["source"] = {"type": "datasets", "path": "code.jsonl"}
    settings["mixture"]["swarm"] = {"model": "models/small"}
    settings["strategy"] = {"name": "planned", "options": {}}
    return parse_params(settings)


def test_what_only_the_repository_has_is_named_with_what_to_do(repository: Path, params: Params) -> None:
    asked = f"in {repository}, and not in the copy of it that DVC works in, which has what git or DVC tracks: `dvc add "
    (model,) = model_fit(params).problems
    assert model.startswith(f"model.path: models/mine is {asked}models/mine` there")
    (sibling,) = [each for each in planned_problems(params, comparing=False) if "swarm.model" in each]
    assert sibling.startswith(f"mixture.swarm.model: models/small is {asked}models/small` there")
    source, *_ = source_problems(params)
    assert source.startswith(f"domains.code.source: data/raw/code.jsonl is {asked}data/raw/code.jsonl` there")
    assert not any("hub" in each for each in (model, sibling, source))


def test_a_folder_beside_the_repository_needs_an_absolute_path(repository: Path) -> None:
    (repository.parent / "beside").mkdir()
    assert missing_in_copy(Path("../beside")) == (
        f"../beside lies outside of {repository}, and DVC works in a copy of that: give its absolute path"
    )
    assert missing_in_copy(repository.parent / "beside") is None


def test_what_is_here_or_nowhere_is_not_missing_in_the_copy(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [missing_in_copy(Path(name)) for name in ("added", "nowhere", "nowhere/*.jsonl")] == [None] * 3
    assert missing_in_copy(Path("data/raw/*.jsonl")) is not None
    monkeypatch.chdir(repository)
    assert missing_in_copy(Path("models/none")) is None


def test_a_sibling_that_is_nowhere_is_none_of_the_hub(workspace: Path, params: Params) -> None:
    assert "mixture.swarm.model: 'models/small' is not a folder" in planned_problems(params, comparing=False)
