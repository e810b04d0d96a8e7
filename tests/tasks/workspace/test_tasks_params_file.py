"""Overrides end up in params.yaml, comments and all, or nowhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.workspace import paths
from tasks.workspace.params_file import (
    ParamsChangedError,
    override_params,
    params_snapshot,
    parse_override,
    read_params,
)
from velocitune_core.config import ConfigError, load_params

PROJECT = Path(__file__).parents[3]
ONE_DOMAIN = "{code: 1, legal: 0, cli: 0, papers: 0, literature: 0, biomed: 0, general: 0}"


@pytest.fixture
def params_file(workspace: Path) -> Path:
    """The committed params.yaml in a workspace of its own."""
    shutil.copyfile(PROJECT / "params.yaml", paths.PARAMS)
    return paths.PARAMS


def test_only_the_values_change(params_file: Path) -> None:
    before = params_file.read_text().splitlines()
    override_params({"strategy.name": "recommended", "training.seed": 7})
    after = params_file.read_text().splitlines()
    assert len(before) == len(after)
    changed = [(old.split(), new.split()) for old, new in zip(before, after, strict=True) if old.split() != new.split()]
    assert [(old[:2], new[:2]) for old, new in changed] == [
        (["name:", "velocitune"], ["name:", "recommended"]),
        (["seed:", "1"], ["seed:", "7"]),
    ]
    assert [old[2:] for old, _ in changed] == [new[2:] for _, new in changed]  # comments behind the values
    params = load_params(params_file)
    assert (params.strategy.name, params.training.seed) == ("recommended", 7)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("training.optimizer.learning_rate=1e-5", 1e-5),
        ("training.optimizer.learning_rate=0.00001", 1e-5),
        ("strategy.options.step_size=2.5e-1", 0.25),
        ("proxies.fractions=[0.1, 0.2, 0.00003e4]", [0.1, 0.2, 0.3]),
        ("resources.threads=3", 3),
        (f"mixture.initial_domain_weights={ONE_DOMAIN}", None),
    ],
)
def test_what_is_written_is_what_is_read(params_file: Path, setting: str, value: Any) -> None:
    key, given = parse_override(setting)
    override_params({key: given})
    found: Any = load_params(params_file).model_dump()
    for part in key.split("."):
        found = found[part]
    assert found == (given if value is None else value)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"strategy.nam": "static"}, "strategy.nam"),
        ({"training.seed": 3, "trainig.seed": 3}, "trainig"),
        ({"training.batch_sequences": "many"}, "training.batch_sequences"),
        ({"mixture.initial_domain_weights.code": 0.5}, "mixture.initial_domain_weights"),
        ({"seed.of.all": 1}, "seed"),
        ({"training.compile": "never"}, "training.compile: renamed to execution.compile"),
    ],
)
def test_what_params_cannot_hold_is_refused_and_nothing_written(
    params_file: Path, overrides: dict[str, Any], field: str
) -> None:
    before = params_file.read_bytes()
    with pytest.raises(ConfigError) as refused:
        override_params(overrides)
    assert field in str(refused.value) and "nothing was run" in str(refused.value)
    assert params_file.read_bytes() == before


def test_no_overrides_need_no_file(workspace: Path) -> None:
    override_params({})
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("strategy.name=static", ("strategy.name", "static")),
        ("training.seed=7", ("training.seed", 7)),
        ("training.token_budget=null", ("training.token_budget", None)),
        ("training.token_budget=", ("training.token_budget", None)),
        ("a=b=c", ("a", "b=c")),
        ("a=[1, 2]", ("a", [1, 2])),
        ("a={b: 0.5}", ("a", {"b": 0.5})),
        ("a=true", ("a", True)),
        ("a='7'", ("a", "7")),
    ],
)
def test_forms_of_an_override(setting: str, expected: tuple[str, Any]) -> None:
    assert parse_override(setting) == expected


@pytest.mark.parametrize("setting", ["strategy.name", "=static", "", "a=[1, 2", "a={b: c: d}"])
def test_other_forms_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_override(setting)


@pytest.mark.parametrize(
    "overrides",
    [{"strategy.name": "no-such-strategy"}, {"strategy.options.gap_polcy": "hold"}, {"strategy.name": "dbl"}],
)
def test_a_strategy_that_cannot_be_built_is_not_written(params_file: Path, overrides: dict[str, Any]) -> None:
    before = params_file.read_bytes()
    with pytest.raises(ConfigError, match="strategy"):
        override_params(overrides)
    assert params_file.read_bytes() == before


def test_a_run_keeps_the_settings_that_it_read(params_file: Path) -> None:
    with params_snapshot() as snapshot:
        assert snapshot.unchanged() and read_params().training.seed == 1
        snapshot.check_committed([])
        override_params({"training.seed": 7})
        assert not snapshot.unchanged() and read_params().training.seed == 1
        with params_snapshot() as inner:
            assert inner is snapshot
        with pytest.raises(
            ParamsChangedError, match=r"params\.yaml was edited during the run: train, report ran under"
        ):
            snapshot.check_committed(["train", "report"])
        override_params({"training.seed": 1})
        assert snapshot.unchanged()
        params_file.unlink()
        assert not snapshot.unchanged() and read_params().training.seed == 1
    with pytest.raises(ConfigError, match="no such file"):
        read_params()
