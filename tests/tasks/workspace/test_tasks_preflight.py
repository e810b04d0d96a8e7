"""Everything that is wrong with a workspace is said at once, before any work."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.workspace import paths
from tasks.workspace.preflight import checked_params
from velocitune_core.config import ConfigError

PROJECT = Path(__file__).parents[3]
Tree = dict[str, Any]


@pytest.fixture
def sound(workspace: Path, settings: Tree) -> Tree:
    """A workspace in which nothing is wrong, and its settings."""
    shutil.copyfile(PROJECT / "dvc.yaml", paths.PIPELINE)
    Path("data/raw").mkdir(parents=True)
    for name in settings["domains"]:
        Path(f"data/raw/{name}.jsonl").write_text('{"text": "a document"}\n')
    make_model(Path("models/mine"), "model.safetensors")
    write(settings)
    checked_params()
    return settings


def make_model(folder: Path, weights: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / weights).write_bytes(b"")


def write(tree: Tree) -> None:
    paths.PARAMS.write_text(yaml.safe_dump(tree, sort_keys=False))


def problems(tree: Tree) -> list[str]:
    """What is said of these settings, a line each."""
    write(tree)
    with pytest.raises(ConfigError) as refused:
        checked_params()
    heading, *lines = str(refused.value).splitlines()
    assert heading == "params.yaml:"
    return [line.strip() for line in lines]


def no_model(tree: Tree) -> None:
    tree["model"]["path"] = "models/nowhere"


def pickled_model(tree: Tree) -> None:
    make_model(Path("models/pickled"), "pytorch_model.bin")
    tree["model"]["path"] = "models/pickled"


def base_not_described(tree: Tree) -> None:
    tree["model"]["path"] = "models/base"


def base_of_unknown_domain(tree: Tree) -> None:
    tree["model"]["path"] = "models/base"
    tree["base"] = {"domains": ["poetry"], "training": tree["training"]}


@pytest.mark.parametrize(
    ("break_model", "says"),
    [
        (no_model, "model.path: 'models/nowhere' is not a folder"),
        (pickled_model, "model.path: models/pickled has no .safetensors weights"),
        (base_not_described, "base: missing"),
        (base_of_unknown_domain, "base.domains: ['poetry'] are no domains; choose from ['code', 'law', 'recipes']"),
    ],
)
def test_every_problem_is_said_at_once(sound: Tree, break_model: Callable[[Tree], None], says: str) -> None:
    break_model(sound)
    sound["strategy"]["name"] = "velocitone"
    Path("data/raw/law.jsonl").unlink()
    sound["domains"]["recipes"] = {"source": {"type": "jsonl", "path": "recipes.jsonl"}}
    del sound["targets"], sound["training"]["token_budget"]
    said = problems(sound)
    assert sum(line.startswith(("model.path", "base")) for line in said) == 1
    assert any(line.startswith(says) for line in said)
    assert any(line.startswith("strategy: strategy 'velocitone' is unknown") for line in said)
    assert any(line.startswith("domains.law.source: ") and "law.jsonl" in line for line in said)
    assert any(line.startswith("domains.recipes.source: ") and "recipes.jsonl" in line for line in said)
    assert "targets: missing, and dvc.yaml watches it; write it down" in said
    assert "training.token_budget: missing, and dvc.yaml watches it; write it down" in said
    assert len(said) == 6


def test_a_wrong_option_of_the_strategy_is_said(sound: Tree) -> None:
    sound["strategy"]["options"] = {"gap_policy": "hope"}
    assert len(said := problems(sound)) == 1 and "hope" in said[0]


def test_wrong_fields_are_said_together(sound: Tree) -> None:
    sound["training"]["batch_sequences"] = 0
    sound["colour"] = "blue"
    sound["strategy"]["name"] = "velocitone"
    assert sorted(line.split(":")[0] for line in problems(sound)) == ["colour", "strategy", "training.batch_sequences"]


def test_sources_made_by_the_pipeline_need_not_be_there(sound: Tree) -> None:
    sound["data"]["path"] = "data/embedded"
    assert len(said := problems(sound)) == 1 and said[0].startswith("domains.law.source.path: 'law.jsonl' is none of")
    sound["domains"]["law"]["source"]["path"] = "legal.jsonl"
    write(sound)
    assert checked_params().data.path == "data/embedded"


def test_a_source_that_dvc_does_not_watch_is_warned_of(sound: Tree, caplog: pytest.LogCaptureFixture) -> None:
    Path("elsewhere.jsonl").write_text('{"text": "a document"}\n')
    sound["domains"]["law"]["source"]["path"] = "../../elsewhere.jsonl"
    write(sound)
    with caplog.at_level(logging.WARNING):
        checked_params()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["domains.law"]


def test_a_missing_file_is_named(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: no such file"):
        checked_params()


def test_a_comparison_is_checked_for_those_who_compare(sound: Tree) -> None:
    Path("comparison").mkdir()
    Path("comparison/dvc.yaml").write_text("stages: {}\n")
    runs = {"static": {"strategy": "static"}, "mine": {"strategy": "velocitoon"}}
    sound["compare"] = {
        "seeds": [1],
        "baseline": "static",
        "frontier": ["static"],
        "retained": ["poetry"],
        "runs": runs,
    }
    write(sound)
    checked_params()
    with pytest.raises(ConfigError) as refused:
        checked_params(comparing=True)
    assert "compare.runs.mine: strategy: strategy 'velocitoon' is unknown" in str(refused.value)
    assert "compare.retained: ['poetry'] are no domains" in str(refused.value)
    del sound["compare"]
    write(sound)
    with pytest.raises(ConfigError, match="compare: missing"):
        checked_params(comparing=True)
