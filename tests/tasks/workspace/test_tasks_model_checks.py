"""The model of params.yaml is opened before any work: once in each state, and what is wrong is said once."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.workspace import model_checks, paths, said_once
from tasks.workspace.model_checks import model_fit
from tasks.workspace.preflight import checked_params
from velocitune_core.config import ConfigError, Params, parse_params
from velocitune_core.model.fits_data import Fit

PROJECT = Path(__file__).parents[3]
Tree = dict[str, Any]


@pytest.fixture
def params(workspace: Path, settings: Tree, tiny_inputs: Path) -> Params:
    """Of a workspace whose model is good."""
    for file in ("dvc.yaml", "inputs/corpus/dvc.yaml", "inputs/base/dvc.yaml", "comparison/dvc.yaml"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / file, file)
    Path("data/raw").mkdir(parents=True)
    for name in settings["domains"]:
        Path(f"data/raw/{name}.jsonl").write_text('{"text": "a document"}\n')
    shutil.copytree(tiny_inputs / "model", "models/mine")
    settings["data"]["sequence_length"] = 16
    paths.PARAMS.write_text(yaml.safe_dump(settings))
    return parse_params(settings)


def at(params: Params, path: str) -> Params:
    return params.model_copy(update={"model": params.model.model_copy(update={"path": path})})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("models/trained", "models/trained is made by the stage `train`"),
        ("./models/../models/trained/", "is made by the stage `train`"),
        ("models/trained/checkpoint", "is made by the stage `train`"),
        ("models/base/sibling", "models/base/sibling is made by the stage `base`"),
        ("runs/training-1a2b/model", "is made by runs of the pipeline"),
        ("models", "models contains models/"),
        ("prepared", "is made by the stage `prepare`"),
    ],
)
def test_the_pipeline_cannot_start_from_what_it_makes(params: Params, path: str, expected: str) -> None:
    shutil.copytree("models/mine", "models/trained")
    (problem,) = model_fit(at(params, path)).problems
    assert problem.startswith("model.path: ") and expected in problem
    assert problem.endswith("copy the model to another folder, such as models/mine, and name that")


def test_a_model_is_opened_once_in_each_state(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_model(path: str, *_: Any, **__: Any) -> Fit:
        opened.append(path)
        return Fit(warnings=["a head is left out"])

    monkeypatch.setattr(model_checks, "open_model", open_model)
    assert [model_fit(params) for _ in range(3)] == 3 * [Fit(warnings=["a head is left out"])]
    assert len(opened) == 1
    weights = Path("models/mine/model.safetensors")
    weights.write_bytes(weights.read_bytes())
    model_fit(params)
    assert len(opened) == 2, "the file is another"
    model_fit(params.model_copy(update={"data": params.data.model_copy(update={"document_mask": True})}))
    assert len(opened) == 3, "the settings are others"


def test_a_model_that_was_found_bad_is_opened_again(params: Params) -> None:
    config = Path("models/mine/config.json")
    good = config.read_text()
    config.write_text(json.dumps(json.loads(good) | {"vocab_size": 50}))
    for _ in range(2):
        assert [line.split(" has ")[1][:9] for line in model_fit(params).problems] == ["1 weights", "token ids"]
    config.write_text(good)
    assert model_fit(params) == Fit()


def test_one_mistake_is_one_line(params: Params) -> None:
    """A clone without git-lfs: no file is what it seems, and each check would say so in its own way."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        Path("models/mine", name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ConfigError) as refused:
        checked_params()
    (_, line) = str(refused.value).splitlines()
    assert "config.json, model.safetensors, tokenizer.json are git-LFS pointers" in line


def test_a_warning_is_given_once_in_a_process(
    params: Params, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipeline checks before every stage."""
    tree = yaml.safe_load(paths.PARAMS.read_text())
    tree["data"]["sequence_length"] = 32
    paths.PARAMS.write_text(yaml.safe_dump(tree))
    monkeypatch.setattr(said_once, "_said", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            checked_params()
    assert [each.split(":")[0] for each in caplog.messages] == ["data.sequence_length"]
