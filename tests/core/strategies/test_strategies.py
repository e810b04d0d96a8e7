"""Strategies with constant weights, and the registry that builds one by name."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from velocitune_core.strategies import (
    CHOICES,
    PLANNED_COURSE,
    PRESETS,
    REGISTRY,
    BatchObservation,
    Observation,
    Strategy,
    StrategyError,
    check_strategy,
    make_strategy,
    measured_options,
    resolve_preset,
    strategy_class,
    strategy_modules,
    user_options,
)

WEIGHTS = {"code": 0.5, "papers": 0.3, "general": 0.2}
INITIAL = {"code": 4.0, "papers": 5.0, "general": 4.0}
TARGET = {"code": 2.0, "papers": 3.0, "general": 3.0}
LOSSES = {"initial_loss": INITIAL, "target_loss": TARGET}
NAMES = [
    "ado",
    "dbl",
    "doremi",
    "odm",
    "planned",
    "planned_course",
    "recommended",
    "static",
    "temperature",
    "uniform",
    "velocitune",
]
OWN = """
from velocitune_core.strategies import Strategy


class Last(Strategy):
    def __init__(self, *, initial_weights, share: float = 1.0, target_loss=None):
        super().__init__(initial_weights=initial_weights)
        self.share = share

    def observe_batch(self, batch):
        self.weights = self.initial_weights[::-1].copy()


class NoStrategy:
    pass
"""


def observe(losses: dict[str, float]) -> Observation:
    return Observation(step=10, total_steps=100, steps_since_update=10, losses=losses)


def make(name: str, **options: object) -> Strategy:
    measured = {each: LOSSES[each] for each in measured_options(name) & set(LOSSES)}
    return make_strategy(name, initial_weights=WEIGHTS, **{**measured, **options})


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module with a name unique to the test into the working folder, the only place it can be imported from."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])  # the working folder is added to it
    return name


def test_only_a_users_module_is_looked_for_in_the_working_folder(own_module: str) -> None:
    here = str(Path.cwd())
    sys.path[:] = [each for each in sys.path if each != here]
    for name in NAMES:
        strategy_class(name)
    assert here not in sys.path
    strategy_class(f"{own_module}:{OWN.partition('class ')[2].partition('(')[0]}")
    assert here in sys.path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("static", [0.5, 0.3, 0.2]),
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        # T = 2: √w_0 = (0.707107, 0.547723, 0.447214), sum 1.702043
        ("temperature", [0.415446, 0.321803, 0.262751]),
    ],
)
def test_constant_strategies_keep_their_weights(name: str, expected: list[float]) -> None:
    strategy = make(name)
    for weights in (strategy.weights, strategy.update(observe(INITIAL)), strategy.update(observe(TARGET))):
        assert weights == pytest.approx(expected, abs=1e-6)
    assert strategy.velocity is None
    assert strategy.warnings == []


def test_temperature_spans_size_to_uniform() -> None:
    assert make("temperature", temperature=1.0).weights == pytest.approx([0.5, 0.3, 0.2])
    assert make("temperature", temperature=1e6).weights == pytest.approx([1 / 3] * 3, abs=1e-5)
    with pytest.raises(StrategyError, match="temperature 0 must be above 0"):
        make("temperature", temperature=0)


def test_temperature_goes_by_tokens_where_they_are_known() -> None:
    tokens = {"papers": 90, "general": 400, "code": 10}  # in an order of its own
    assert make("temperature", temperature=1.0, domain_tokens=tokens).weights == pytest.approx([0.02, 0.18, 0.8])
    # T = 2: √(10, 90, 400) = (3.162278, 9.486833, 20), sum 32.649111
    weights = make("temperature", domain_tokens=tokens).weights
    assert weights == pytest.approx([0.096856, 0.290570, 0.612574], abs=1e-6)
    with pytest.raises(StrategyError, match=r"domain_tokens is missing for \['general'\]"):
        make("temperature", domain_tokens={"code": 1, "papers": 1})


def test_initial_weights_are_normalised() -> None:
    assert make_strategy("static", initial_weights={"a": 6, "b": 2}).weights.tolist() == [0.75, 0.25]


@pytest.mark.parametrize("name", ["static", "uniform", "temperature"])
def test_a_saved_state_of_constant_weights_resumes_identically(name: str) -> None:
    resumed = make(name)
    resumed.load_state_dict(json.loads(json.dumps(make(name).state_dict())))
    assert resumed.weights.tolist() == make(name).weights.tolist()


def test_a_state_of_other_domains_is_refused() -> None:
    with pytest.raises(StrategyError, match=r"weights of the saved state is missing for \['papers', 'general'\]"):
        make("static").load_state_dict({"weights": {"code": 1.0}})


def test_every_registered_name_has_its_file_and_its_class() -> None:
    assert sorted([*REGISTRY, *PRESETS]) == NAMES
    assert set(NAMES) - set(CHOICES) == {PLANNED_COURSE}
    for name, address in REGISTRY.items():
        assert strategy_class(name).__name__ == address.partition(":")[2]
        module = address.partition(":")[0]
        files = strategy_modules(name)  # of its class and base classes
        assert files[module].name == module.rpartition(".")[2] + ".py"


def test_measured_options_are_those_that_the_pipeline_supplies() -> None:
    assert measured_options("static") == set()
    assert measured_options("temperature") == {"domain_tokens"}
    assert measured_options("dbl") == {"target_loss"}
    assert measured_options("velocitune") == {"initial_loss", "target_loss"}
    assert user_options("dbl") == {"step_size", "smoothing", "clamp"}


def test_only_doremi_needs_a_reference() -> None:
    assert [name for name in sorted(REGISTRY) if strategy_class(name).needs_reference] == ["doremi"]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_its_strategy_with_its_options(name: str) -> None:
    base, options = PRESETS[name].strategy, PRESETS[name].options
    assert resolve_preset(name, {}) == (base, options)
    assert strategy_class(name) is strategy_class(base)
    assert user_options(name) == user_options(base)
    assert check_strategy(name, {}, ["a", "b"]) == []
    measured = {each: LOSSES[each] for each in measured_options(base)}
    by_preset, by_hand = make(name), make_strategy(base, initial_weights=WEIGHTS, **measured, **options)
    assert by_preset.update(observe(INITIAL)).tolist() == by_hand.update(observe(INITIAL)).tolist()


def test_options_override_those_of_a_preset() -> None:
    base, options = resolve_preset("recommended", {"gap_policy": "hold", "smoothing": 0.5})
    assert (base, options["gap_policy"], options["smoothing"]) == ("velocitune", "hold", 0.5)
    assert resolve_preset("static", {"a": 1}) == ("static", {"a": 1})


def test_a_class_of_the_users_own_is_found_in_the_working_folder(own_module: str) -> None:
    name = f"{own_module}:Last"
    assert strategy_modules(name) == {own_module: Path.cwd() / f"{own_module}.py"}
    assert user_options(name) == {"share"}
    assert measured_options(name) == {"target_loss"}
    assert check_strategy(name, {"share": 0.5}, ["a", "b"]) == []
    strategy = make_strategy(name, initial_weights={"a": 3, "b": 1}, share=0.5)
    strategy.observe_batch(None)
    assert strategy.weights.tolist() == [0.25, 0.75]
    assert strategy.share == 0.5


def test_a_class_of_the_users_own_that_cannot_work_is_refused(own_module: str) -> None:
    for name, options, message in (
        (f"{own_module}:Last", {"shore": 1}, r"has no option shore \(did you mean share\?\); it has share"),
        (f"{own_module}:First", {}, "cannot be imported: .*First"),
        (f"{own_module}_2:Last", {}, "cannot be imported: No module named"),
        (f"{own_module}:NoStrategy", {}, "is no subclass of velocitune_core.strategies.Strategy"),
    ):
        with pytest.raises(StrategyError, match=message):
            make_strategy(name, initial_weights=WEIGHTS, **options)
    Path(f"{own_module}_broken.py").write_text("def (:\n")
    with pytest.raises(StrategyError, match="cannot be imported: invalid syntax"):
        strategy_class(f"{own_module}_broken:Last")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "mystery",
            {},
            re.escape(f"strategy 'mystery' is unknown; choose one of {', '.join(CHOICES)}, or name"),
        ),
        (
            "velocitune",
            {"stepsize": 1},
            r"'velocitune' has no option stepsize \(did you mean step_size\?\); it has gap_policy, initial_",
        ),
        ("recommended", {"stepsize": 1}, r"'recommended' has no option stepsize \(did you mean step_size\?\)"),
        ("Recomended", {}, re.escape("'Recomended' is unknown (did you mean recommended?); choose one of ado, dbl, ")),
        ("velocitune", {"velocity_unit": "nat"}, r"velocity_unit 'nat' \(did you mean nats\?\) must be one of share, "),
        ("static", LOSSES, r"'static' has no option initial_loss, target_loss; it has none"),
        ("velocitune", {"gap_policy": "ignore"}, "gap_policy 'ignore' must be one of error, freeze, hold, "),
        ("velocitune", {"step_size_per": "step"}, "step_size_per 'step' must be one of update, budget"),
        ("velocitune", {"smoothing": 1.5}, r"smoothing 1.5 in \[0, 1\]"),
        ("velocitune", {"step_size": math.nan}, "step_size nan"),
        ("velocitune", {"target_loss": {"code": 2.0, "general": 3.0}}, r"target_loss is missing for \['papers'\]"),
    ],
)
def test_invalid_settings_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        make(name, **options)


def test_missing_targets_are_named() -> None:
    with pytest.raises(StrategyError, match=r"'velocitune' needs the options \['target_loss'\]"):
        make_strategy("velocitune", initial_weights=WEIGHTS, initial_loss=INITIAL)


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": math.nan}])
@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_that_are_negative_or_all_zero_are_refused(name: str, weights: dict[str, float]) -> None:
    measured = {each: dict.fromkeys(weights, 2.0) for each in measured_options(name)}
    with pytest.raises(StrategyError, match="must be non-negative and not all zero"):
        make_strategy(name, initial_weights=weights, **measured)


def test_check_strategy_needs_no_measured_losses() -> None:
    assert check_strategy("velocitune", {"gap_policy": "hold", "step_size": 0.5}, ["a", "b"]) == []
    assert check_strategy("velocitune", {"gap_policy": "error"}, ["a", "b"]) == []  # unknown until targets are there
    assert check_strategy("temperature", {"temperature": 3.0}, ["a"]) == []
    (problem,) = check_strategy("velocitune", {"smoothing": -1}, ["a"])
    assert problem.startswith("strategy: ") and "smoothing -1" in problem
    (problem,) = check_strategy("doge", {}, ["a"])
    assert "'doge' is unknown" in problem


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_can_be_checked_without_measured_losses(name: str) -> None:
    assert check_strategy(name, {}, ["a", "b"]) == []


@pytest.mark.parametrize("options", [{"step_size": "fast"}, {"smoothing": None}, {"gap_policy": 3}])
def test_check_strategy_reports_options_of_a_wrong_type(options: dict[str, object]) -> None:
    (problem,) = check_strategy("velocitune", options, ["a", "b"])
    assert problem.startswith("strategy: ")


def test_the_page_on_strategies_names_every_option_and_its_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "STRATEGIES.md").read_text()
    rows = {name: [row for row in page.splitlines() if row.startswith(f"| `{name}`")] for name in NAMES}
    for name in REGISTRY:
        missing = [option for option in user_options(name) if f"`{option}`" not in "".join(rows[name])]
        assert (name, missing) == (name, [])
    (tmp_path / "page_example.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    strategy = make_strategy("page_example:Loudest", initial_weights=WEIGHTS)
    for losses in ([3.0, math.nan, 4.0], [math.nan] * 3):
        strategy.observe_batch(BatchObservation(1, 10, np.array([2, 0, 1]), np.array(losses)))
        assert strategy.weights == pytest.approx([0.25, 0.15, 0.6])
