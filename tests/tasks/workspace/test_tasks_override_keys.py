"""A nested override is its dotted keys; a mapping whose keys a user chooses is replaced as a whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from tasks.workspace import paths, said_once
from tasks.workspace.form import with_fields
from tasks.workspace.override_keys import dotted
from tasks.workspace.params_file import overridden_text, override_params
from velocitune_core.config import ConfigError

PROJECT = Path(__file__).parents[3]
SWARM_ROUNDS = {"mixture": {"swarm": {"rounds": {"first": 11, "runs": 4}}}}
ONE_RUN = {"compare.runs": {"static": {"strategy": "static"}}}


@pytest.fixture
def params_file(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The committed params.yaml in a workspace of its own."""
    monkeypatch.setattr(said_once, "_said", set())
    shutil.copyfile(PROJECT / "params.yaml", paths.PARAMS)
    return paths.PARAMS


@pytest.mark.parametrize(
    ("nested", "keys"),
    [
        (
            {"evaluation": {"every_steps": 8}, "execution": {"log_every_steps": 3}},
            {"evaluation.every_steps": 8, "execution.log_every_steps": 3},
        ),
        ({"strategy": {"name": "static"}}, {"strategy.name": "static"}),
        ({"base": {"hidden_size": 48, "heads": 3}}, {"base.hidden_size": 48, "base.heads": 3}),
        ({"training": {"optimizer.epsilon": 1e-7}}, {"training.optimizer.epsilon": 1e-7}),
        ({"domains.code": {"max_tokens": 1000}}, {"domains.code.max_tokens": 1000}),
        ({"compare.runs.dbl": {"search": 0.5}}, {"compare.runs.dbl.search": 0.5}),
        (SWARM_ROUNDS, {"mixture.swarm.rounds.first": 11, "mixture.swarm.rounds.runs": 4}),
        ({"evaluation": {}}, {"training.seed": 1}),  # which is there already
    ],
)
def test_a_mapping_for_a_section_changes_the_keys_that_it_names(
    params_file: Path, nested: dict[str, Any], keys: dict[str, Any]
) -> None:
    text, notices = overridden_text(nested)
    assert (text, notices) == overridden_text(keys)
    assert text.count("#") == params_file.read_text().count("#") and not notices


@pytest.mark.parametrize("setting", ["strategy={name: static}", "base={hidden_size: 48, heads: 3}"])
def test_dvc_reads_a_mapping_for_a_section_in_the_same_way(params_file: Path, setting: str) -> None:
    key, _, value = setting.partition("=")
    ours, _ = overridden_text({key: yaml.safe_load(value)})
    apply_overrides(str(params_file), [setting])
    assert ours == params_file.read_text()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strategy.options", {"step_size": 2.0}),
        ("compare.runs", {"static": {"strategy": "static"}}),
        ("compare.runs.steered.options", {"step_size": 2.0}),
        ("domains.code.source", {"type": "text", "path": "other.txt"}),
        ("mixture.objective.averages", {"mine": {"code": 1}}),
        ("downstream.tasks", {"code": ["a/b"]}),
    ],
)
def test_a_mapping_whose_keys_a_user_chooses_and_a_source_are_replaced(
    params_file: Path, key: str, value: dict[str, Any]
) -> None:
    override_params({"strategy.options": {"gap_policy": "hold"}, "domains.code.source.text_field": "content"})
    section, _, last = key.rpartition(".")
    for given in ({key: value}, {section: {last: value}}):
        found: Any = yaml.safe_load(overridden_text(given)[0])
        for part in key.split("."):
            found = found[part]
        assert found == value


def test_domains_and_labels_that_a_whole_mapping_removes_are_named(
    params_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    override_params(ONE_RUN)
    assert "compare.runs: replaced as a whole, so without temperature-1_5, " in caplog.text
    caplog.clear()
    override_params({"domains": {name: {"source": {"type": "text", "path": name}} for name in ("code", "general")}})
    assert "domains: replaced as a whole, so without legal, cli, papers, literature, biomed; to change" in caplog.text
    assert list(yaml.safe_load(params_file.read_text())["domains"]) == ["code", "general"]


def test_a_field_of_the_form_and_a_nested_override_are_compared() -> None:
    assert with_fields({"strategy": {"name": "static"}}, "static", None, None, None) == {"strategy.name": "static"}
    with pytest.raises(ConfigError, match=r"training\.seed: 2 in its field, 3 in overrides"):
        with_fields({"training": {"seed": 3}}, None, 2, None, None)
    with pytest.raises(ConfigError, match=r"training\.seed: given twice, as 3 and 4"):
        dotted({"training": {"seed": 3}, "training.seed": 4})
