"""Sizes of the model that a price is of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.runs.price import shape_of_folder
from velocitune_core.config import Shape
from velocitune_core.model.build import llama_config


def write_model(layers: int) -> None:
    shutil.rmtree("model", ignore_errors=True)
    llama_config(Shape(hidden_size=8, intermediate_size=16, layers=layers, heads=2), 32, 300).save_pretrained("model")


def test_a_folder_that_is_made_anew_and_one_of_another_workspace_have_their_own_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the stage `base` does under another shape, in the process that computes prices afterwards."""
    monkeypatch.chdir(tmp_path)
    write_model(layers=1)
    assert shape_of_folder("model").layers == 1
    write_model(layers=2)
    assert shape_of_folder("model").layers == 2
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    write_model(layers=3)
    assert shape_of_folder("model").layers == 3


def test_the_files_of_a_folder_may_be_links_into_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a snapshot of the hub, and of DVC's with links."""
    monkeypatch.chdir(tmp_path)
    write_model(layers=2)
    Path("blobs").mkdir()
    Path("model/config.json").rename("blobs/0123abcd")
    Path("model/config.json").symlink_to("../blobs/0123abcd")
    assert shape_of_folder("model").layers == 2
