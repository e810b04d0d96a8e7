"""Overrides end up in params.yaml, comments and all, or nowhere."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from difflib import ndiff
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

from tasks.workspace import paths, said_once
from tasks.workspace.command_end import command_ended
from tasks.workspace.left_over import left_over
from tasks.workspace.params_file import (
    ParamsChangedError,
    override_params,
    params_snapshot,
    parse_override,
    read_params,
)
from velocitune_core.config import ConfigError, StrategyConfig, load_params

PROJECT = Path(__file__).parents[3]
ONE_DOMAIN = "{code: 1, legal: 0, cli: 0, papers: 0, literature: 0, biomed: 0, general: 0}"


@pytest.fixture
def params_file(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The committed params.yaml in a workspace of its own, with an option of its strategy."""
    monkeypatch.setattr(said_once, "_said", set())
    before, strategy, after = (PROJECT / "params.yaml").read_text().partition("\nstrategy:")
    option = "options:\n    gap_policy: hold          # its option"
    paths.PARAMS.write_text(before + strategy + after.replace("options: {}", option, 1))
    return paths.PARAMS


def test_only_the_values_change(params_file: Path) -> None:
    before = params_file.read_text().splitlines()
    override_params({"strategy.name": "velocitune", "training.seed": 7})
    after = params_file.read_text().splitlines()
    assert len(before) == len(after)
    changed = [(old.split(), new.split()) for old, new in zip(before, after, strict=True) if old.split() != new.split()]
    assert [(old[:2], new[:2]) for old, new in changed] == [
        (["name:", "recommended"], ["name:", "velocitune"]),
        (["seed:", "1"], ["seed:", "7"]),
    ]
    assert [old[2:] for old, _ in changed] == [new[2:] for _, new in changed]  # comments behind the values
    params = load_params(params_file)
    assert (params.strategy.name, params.training.seed) == ("velocitune", 7)


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
    ("overrides", "field", "unknown"),
    [
        (
            {"strategy.nam": "static"},
            "strategy.nam: unknown key; remove it or check its spelling; did you mean strategy.name?",
            True,
        ),
        ({"training.seed": 3, "trainig.seed": 3}, "trainig", True),
        ({"evaluation": {"every_step": 8}}, "did you mean evaluation.every_steps?", True),
        ({"training.batch_sequences": "many"}, "training.batch_sequences", False),
        ({"strategy.options.steps.such": 1}, "has no option steps", False),
        ({"mixture.initial_domain_weights.code": 0.5}, "mixture.initial_domain_weights", False),
        ({"seed.of.all": 1}, "seed", True),
        ({"training.compile": "never"}, "training.compile: renamed to execution.compile", False),
        ({"evaluation": {"every_steps": 8}, "evaluation.every_steps": 9}, "evaluation.every_steps: given twice", False),
    ],
)
def test_what_params_cannot_hold_is_refused_and_nothing_written(
    params_file: Path, overrides: dict[str, Any], field: str, unknown: bool
) -> None:
    before = params_file.read_bytes()
    with pytest.raises(ConfigError) as refused:
        override_params(overrides)
    assert field in str(refused.value)
    assert ("give overrides as dotted keys" in str(refused.value)) == unknown
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


@pytest.mark.parametrize("setting", ["strategy.name", "=static", ""])
def test_other_forms_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_override(setting)


@pytest.mark.parametrize("value", ["[1, 2", "{b: c: d}", "{x: 1", "'a", "[" * 50, "[" * 3000])
def test_values_that_are_no_yaml_are_refused_in_one_short_line(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^-S a: .*; [^\n]+$") as refused:
        parse_override(f"a={value}")
    assert len(str(refused.value)) < 200 and "line" not in str(refused.value)
    assert "[" * 40 not in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        {"strategy.name": "no-such-strategy"},
        {"strategy.options.gap_polcy": "hold"},
        {"strategy.name": "dbl", "strategy.options.gap_policy": "hold"},
        {"strategy.name": "dbl", "strategy.options": {"gap_policy": "hold"}},
        {"strategy.name": "static", "strategy.search": 0.5},
        {"compare.runs.static.options.step_size": 1},
        {"compare.runs.static.search": 0.5},
    ],
)
def test_a_strategy_that_cannot_be_built_is_not_written(params_file: Path, overrides: dict[str, Any]) -> None:
    before = params_file.read_bytes()
    with pytest.raises(ConfigError, match=r"strategy|compare\.runs\.static"):
        override_params(overrides)
    assert params_file.read_bytes() == before


def test_what_belongs_to_the_strategy_before_is_removed(params_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    override_params({"strategy.search": 0.5})
    before = params_file.read_text().splitlines()
    override_params({"strategy.name": "static"})
    after, found = params_file.read_text().splitlines(), read_params().strategy
    assert (found.name, found.options, found.search) == ("static", {}, None)
    assert len(after) == len(before) - 1  # of the option
    assert (
        "strategy.options.gap_policy is an option of recommended, velocitune, and has no use under static"
        in caplog.text
    )
    assert (
        "strategy.search has no use under static" in caplog.text and caplog.text.count("removed from params.yaml") == 2
    )
    override_params({"strategy.name": "velocitune", "strategy.options": {"gap_policy": "freeze", "step_size": 2.0}})
    override_params({"strategy.name": "recommended", "strategy.search": 0.25})
    assert read_params().strategy.options == {"gap_policy": "freeze", "step_size": 2.0}  # it has them, too
    override_params({"strategy.name": "planned"})
    assert read_params().strategy == StrategyConfig(name="planned", options={})


@pytest.mark.parametrize("name", ["static", "temperature", "planned", "dbl"])
def test_dvc_leaves_options_that_are_ignored(params_file: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    apply_overrides(str(params_file), [f"strategy.name={name}"])  # as `dvc exp run -S` does
    assert read_params().strategy.options == {}
    assert (
        f"strategy.options.gap_policy is an option of recommended, velocitune, and has no use under {name}; ignored"
        in (caplog.text)
    )


def test_a_mistake_is_no_option_of_another_strategy(params_file: Path) -> None:
    tree = {"strategy": {"name": "static", "options": {"gap_polcy": "hold"}}, "compare": {"runs": {"a": None}}}
    assert left_over(tree) == [] and left_over(None) == [] and left_over({"strategy": [1]}) == []
    assert left_over({"strategy": {"name": "no-such-strategy", "options": {"temperature": 2}}}) == []
    tree["compare"] = {"runs": {"a": {"strategy": "uniform", "options": {"temperature": 2}}}}
    assert [each.place for each in left_over(tree)] == [("compare", "runs", "a", "options", "temperature")]


def test_an_override_without_a_blank_after_its_colon_is_refused_with_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"^-S training\.schedule: .*: a blank is missing .*: write kind: wsd$"):
        parse_override("training.schedule={decay_fraction: 0.1, kind:wsd}")


def test_an_unused_base_is_checked_by_itself(params_file: Path) -> None:
    override_params({"execution.micro_batch_sequences": 8, "base.training.batch_sequences": 8})
    with pytest.raises(ConfigError, match=r"base\.training\.batch_sequences 12 is not a multiple"):
        override_params({"base.training.batch_sequences": 12})
    override_params({"base.training.batch_sequences": 12, "model.path": "models/mine"})
    assert read_params().base is None
    with pytest.raises(ConfigError, match=r"base\.hiden_size: unknown key; .*; did you mean base\.hidden_size\?"):
        override_params({"base.hiden_size": 12})
    params_file.write_text(
        params_file.read_text().replace("  layers: 4", "  layers: four").replace("seed: 1", "seed: x")
    )
    with pytest.raises(ConfigError, match=r"(?s)training\.seed: .*base\.layers: .* \(got 'four'\); write it in digits"):
        read_params()


@pytest.mark.parametrize(
    ("setting", "lines"),
    [("training.seed=1", 0), ("training.seed=7", 1), ("compare.seeds=[1,2]", 3), ("~strategy.options.gap_policy", 2)],
)
def test_dvc_changes_only_the_lines_of_its_overrides(params_file: Path, setting: str, lines: int) -> None:
    before = params_file.read_text().splitlines()
    apply_overrides(str(params_file), [setting])
    gone = [line for line in ndiff(before, params_file.read_text().splitlines()) if line.startswith("-")]
    assert len(gone) == lines
    load_params(params_file)


def test_both_doors_write_the_same(params_file: Path) -> None:
    def written(change: Callable[[], object]) -> str:
        shutil.copyfile(PROJECT / "params.yaml", params_file)
        change()
        return params_file.read_text()

    ours = written(lambda: override_params({"training.seed": 7, "base.domains": None, "compare.seeds": [3, 4]}))
    given = ["training.seed=7", "base.domains=null", "compare.seeds=[3,4]"]
    assert ours == written(lambda: apply_overrides(str(params_file), given))


def test_a_password_in_an_override_is_warned_of_once_without_it(
    params_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in (1, 2):
        override_params({"tracking.uri": "http://ann:pa55@h:5000", "training.seed": seed})
    override_params({"tracking.uri": "postgresql://ann@db/mlflow"})
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("tracking.uri: params.yaml keeps the password") and "pa55" not in warning
    assert "MLFLOW_TRACKING_PASSWORD" in warning


def test_settings_that_only_their_owner_may_read_stay_so(params_file: Path) -> None:
    params_file.chmod(0o600)
    override_params({"training.seed": 7})
    assert [stat.S_IMODE(file.stat().st_mode) for file in (params_file, paths.OWN_SETTINGS)] == [0o600] * 2
    command_ended("failed")
    assert stat.S_IMODE(params_file.stat().st_mode) == 0o600


def test_settings_behind_a_link_are_changed_and_return_there(params_file: Path) -> None:
    before, real = params_file.read_text(), params_file.rename(params_file.with_name("real.yaml"))
    params_file.symlink_to(real.name)
    override_params({"training.seed": 7})
    assert params_file.is_symlink() and load_params(real).training.seed == 7
    command_ended("failed")
    assert params_file.is_symlink() and real.read_text() == before


def test_small_numbers_of_dvc_are_numbers(params_file: Path) -> None:
    apply_overrides(str(params_file), ["training.optimizer.learning_rate=1e-5"])
    assert "1e-05" in params_file.read_text() and read_params().training.optimizer.learning_rate == 1e-5


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
