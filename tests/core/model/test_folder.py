"""What keeps a folder from being a model, named before anything is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from velocitune_core.model.folder import check_model_folder


@pytest.fixture
def model(tiny_inputs: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_inputs / "model", tmp_path / "model")
    return tmp_path / "model"


def test_a_model_has_no_problem(model: Path) -> None:
    assert check_model_folder(str(model)) == []


def without(pattern: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for file in folder.glob(pattern):
            file.unlink()

    return remove


def unreadable(name: str) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return replace


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without("config.json"), "has no config.json; give a folder made by save_pretrained"),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json has no model_type"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (unreadable("config.json"), "config.json cannot be read: Is a directory"),
        (without("*.safetensors"), "has no .safetensors weights"),
        (without("tokenizer*"), "has no tokenizer; save it beside the model"),
    ],
)
def test_each_problem_is_named_with_its_remedy(model: Path, change: Callable[[Path], object], problem: str) -> None:
    change(model)
    (found,) = check_model_folder(str(model))
    assert found.startswith("model.path: ") and problem in found


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    assert len(check_model_folder(str(tmp_path))) == 3


def test_a_hub_id_is_recognised() -> None:
    assert "python -m tasks.workspace.hub" in check_model_folder("owner/model")[0]
    assert "hub" not in check_model_folder("./owner/model")[0]
