"""Weights in, losses in, weights out, with any strategy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velocitune_core import VelocityReweighter, update_weights
from velocitune_core.own_loop import ReweighterError
from velocitune_core.strategies import PRESETS, REGISTRY, Observation, Strategy, StrategyError

WEIGHTS = {"cats": 3.0, "dogs": 1.0}
INITIAL, TARGETS = {"cats": 2.0, "dogs": 4.0}, {"cats": 1.0, "dogs": 2.0}
LEARNING_FROM_BATCHES = ("odm", "ado", "doremi")


def reweighter(strategy: str = "velocitune", **options: Any) -> VelocityReweighter:
    return VelocityReweighter(
        WEIGHTS,
        strategy=strategy,
        initial_losses=INITIAL,
        target_losses=TARGETS,
        options=options,
        total_steps=40,
    )


def test_one_update_worked_out_by_hand() -> None:
    ours = VelocityReweighter(WEIGHTS, initial_losses=INITIAL, target_losses=TARGETS)
    assert ours.weights == {"cats": 0.75, "dogs": 0.25} and ours.velocity is None
    weights = ours.update({"cats": 1.25, "dogs": 4.0})
    assert ours.velocity == {"cats": 0.25, "dogs": 1.0}
    assert weights == ours.weights
    # 3 : 1 before, times e^0.25 : e^1
    assert weights["cats"] == pytest.approx(3 * np.exp(0.25) / (3 * np.exp(0.25) + np.exp(1.0)))
    assert sum(weights.values()) == pytest.approx(1)


@given(losses=st.lists(st.tuples(st.floats(0.5, 5), st.floats(0.5, 5)), min_size=1, max_size=4))
def test_updates_are_those_of_the_method(losses: list[tuple[float, float]]) -> None:
    ours, expected = reweighter(), np.array([0.75, 0.25])
    for cats, dogs in losses:
        velocity = np.clip([cats - 1.0, (dogs - 2.0) / 2.0], 0, 1)
        expected = update_weights(expected, velocity)
        assert list(ours.update({"cats": cats, "dogs": dogs, "measured only": 1.0}).values()) == pytest.approx(expected)


@settings(max_examples=20)
@given(st.sampled_from(sorted({*REGISTRY, *PRESETS})), st.integers(1, 12))
def test_every_strategy_resumes_exactly_from_json(strategy: str, stopped_at: int) -> None:
    def advance(ours: VelocityReweighter, step: int) -> dict[str, float]:
        losses = {"cats": 2.0 / (1 + step) ** 0.3, "dogs": 4.0 / (1 + step) ** 0.1}
        if strategy in LEARNING_FROM_BATCHES:
            return ours.observe_batch(losses, {"cats": 6, "dogs": 2}, excess={"cats": 0.1 * step, "dogs": 0.2})
        return ours.update(losses, step=3 * step)

    whole = reweighter(strategy)
    for step in range(1, stopped_at + 1):
        advance(whole, step)
    resumed = reweighter(strategy)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    for step in range(stopped_at + 1, 14):
        assert advance(resumed, step) == advance(whole, step)
        assert sum(whole.weights.values()) == pytest.approx(1)


def test_a_step_per_budget_follows_the_steps_since_the_last_update() -> None:
    ours = reweighter(step_size=4.0, step_size_per="budget")  # 4 over 40 steps: 0.1 per step
    ours.update(INITIAL | {"cats": 1.0}, step=5)
    assert ours.weights["dogs"] / ours.weights["cats"] == pytest.approx(np.exp(0.5) / 3)
    ours.update(INITIAL | {"cats": 1.0}, step=20)
    assert ours.weights["dogs"] / ours.weights["cats"] == pytest.approx(np.exp(2.0) / 3)


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ({"cats": 1.0}, "'dogs'"),
        ({"cats": float("nan"), "dogs": 1.0}, "'cats' is nan"),
        ({"cats": None, "dogs": 1.0}, "'cats' is None"),
        ({}, "lack group"),
        (None, "losses None must be a mapping"),
    ],
)
def test_losses_that_no_update_can_use_leave_the_weights_as_they_are(losses: dict[str, float], named: str) -> None:
    ours = reweighter()
    before = ours.state_dict()
    with pytest.raises(ReweighterError, match=named):
        ours.update(losses)
    assert ours.state_dict() == before


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ReweighterError, match="'velocitune' needs target_losses: give the loss"):
        VelocityReweighter(WEIGHTS, initial_losses=INITIAL)
    with pytest.raises(ReweighterError, match=r"initial_losses lacks groups \['dogs'\]"):
        VelocityReweighter(WEIGHTS, initial_losses={"cats": 1.0}, target_losses=TARGETS)
    with pytest.raises(StrategyError, match="lower target for the domain in target_losses"):
        VelocityReweighter(WEIGHTS, initial_losses=TARGETS, target_losses=INITIAL, options={"gap_policy": "error"})
    with pytest.raises(ReweighterError, match=r"'doremi' needs excess: give observe_batch\(…, excess=…\)"):
        reweighter("doremi").observe_batch({"cats": 1.0}, {"cats": 1})
    with pytest.raises(ReweighterError, match="total_steps"):
        VelocityReweighter(WEIGHTS, strategy="ado")
    with pytest.raises(ReweighterError, match="must lie after step 8"):
        ours = reweighter()
        ours.update(INITIAL, step=8)
        ours.update(INITIAL, step=8)
    with pytest.raises(ReweighterError, match=r"'dbl'.*'static'"):
        reweighter("static").load_state_dict(reweighter("dbl").state_dict())
    with pytest.raises(ReweighterError, match="birds"):
        reweighter("odm").observe_batch({"birds": 1.0}, {"cats": 1})


@pytest.mark.parametrize(
    ("losses", "excess", "step", "named"),
    [
        ({"cats": float("nan"), "dogs": 1.0}, None, 6, "'cats' is nan"),
        ({"cats": 1.0, "dogs": float("inf")}, None, 6, "'dogs' is inf"),
        ({"cats": 1.0}, None, 6, "lack group 'dogs'"),
        ({"cats": 1.0, "dogs": 1.0}, {"cats": 1.0}, 6, "lack group 'dogs'"),
        ({"cats": 1.0, "dogs": 1.0}, None, 5, "step 5 must lie after step 5"),
    ],
)
def test_batches_that_cannot_be_used_change_nothing(
    losses: dict[str, float], excess: dict[str, float] | None, step: int, named: str
) -> None:
    ours = reweighter("odm")
    ours.observe_batch({"cats": 1.0}, {"cats": 8, "dogs": 0}, step=5)
    before = ours.state_dict()
    with pytest.raises(ReweighterError, match=named):
        ours.observe_batch(losses, {"cats": 6, "dogs": 2}, excess=excess, step=step)
    assert ours.state_dict() == before


def test_targets_that_nothing_would_use_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ReweighterError, match=r"options have \['target_loss'\]"):
        reweighter(target_loss=TARGETS)
    with pytest.raises(ReweighterError, match=r"target_losses has groups \['birds'\]"):
        VelocityReweighter(WEIGHTS, initial_losses=INITIAL, target_losses=TARGETS | {"birds": 1.0})
    reweighter("static")
    assert "strategy 'static' takes no targets" in caplog.text


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), None, "1.5", [1.0, 2.0]])
@pytest.mark.parametrize("field", ["initial_losses", "target_losses"])
def test_losses_that_would_stop_the_first_update_are_refused_before_the_training(field: str, loss: Any) -> None:
    losses = {"initial_losses": INITIAL, "target_losses": TARGETS}
    losses[field] = {**losses[field], "dogs": loss}
    with pytest.raises(ReweighterError, match=rf"{field}\['dogs'\] is .* but must be a finite number"):
        VelocityReweighter(WEIGHTS, **losses)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"initial_weights": {"cats": None, "dogs": 1}}, r"initial_weights\['cats'\] is None, but must be a finite"),
        ({"initial_weights": [1, 2]}, r"initial_weights \[1, 2\] must be a mapping"),
        ({"initial_weights": [1] * 1000}, r"initial_weights \[1, 1, 1, 1, 1, 1, \.\.\.\] must be a mapping"),
        ({"initial_weights": pd.Series([1.0, 2.0], index=["a", "a"])}, r"has labels \['a', 'a'\], .* the same name"),
        ({"initial_weights": {1: 1.0, "1": 2.0}}, r"initial_weights has labels \[1, '1'\], .* the same name"),
        ({"options": {"step_size": "two"}}, r"options\['step_size'\] is 'two', .* leave it out for 1.0"),
        ({"options": {"step_size": None}}, r"options\['step_size'\] is None"),
        ({"strategy": "ado", "options": {"start_steps": 2.5}}, r"options\['start_steps'\] 2.5 must be an integer"),
        ({"strategy": "dbl", "options": {"clamp": "no"}}, r"options\['clamp'\] 'no' must be True or False"),
        (
            {"strategy": "temperature", "options": {"domain_tokens": {"cats": 1, "dogs": "many"}}},
            r"options\['domain_tokens'\]\['dogs'\] is 'many'",
        ),
        ({"options": ["step_size"]}, r"options \['step_size'\] must be a mapping from option to value"),
        ({"strategy": Strategy}, r"strategy <class .*Strategy'> must be a name, or .* 'module:Class'"),
        ({"total_steps": 10.5}, "total_steps 10.5 must be an integer"),
        ({"total_steps": 0}, "total_steps 0 must be at least 1"),
    ],
)
def test_other_kinds_of_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ReweighterError, match=named):
        VelocityReweighter(
            **{"initial_weights": WEIGHTS, "initial_losses": INITIAL, "target_losses": TARGETS} | arguments
        )


@pytest.mark.parametrize("strategy", ["velocitune", "planned_course", "temperature", "odm"])
def test_labels_that_print_alike_are_one_group_also_after_a_resume_from_json(strategy: str) -> None:
    def made(first: Any, second: Any) -> VelocityReweighter:
        options = {
            "planned_course": {"course": {first: [(0, 1), (1, 0)], second: [(0, 1), (0.5, 0.6), (1, 0)]}},
            "temperature": {"domain_tokens": {first: 10, second: 20}},
        }
        return VelocityReweighter(
            {first: 3.0, second: 1.0},
            strategy=strategy,
            initial_losses={first: 2.0, second: 4.0},
            target_losses={second: 2.0, first: 1.0},
            options=options.get(strategy),
            total_steps=40,
        )

    def advanced(ours: VelocityReweighter, first: Any, second: Any) -> dict[str, float]:
        if strategy == "odm":
            return ours.observe_batch({first: 1.0, second: 5.0}, {first: 3, second: np.int64(5)}, step=30)
        return ours.update({first: 1.25, second: np.float64(4.0)}, step=np.int64(30))

    whole = made(0, 1)
    weights = advanced(whole, np.int64(0), "1")
    assert list(weights) == whole.groups == ["0", "1"]
    for labels in ((0, 1), (np.int64(0), np.int64(1)), (np.int8(0), "1"), ("0", "1")):
        resumed = made(*labels)
        resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
        assert resumed.weights == weights == advanced(made(*labels), *labels)
        assert resumed.updated_at == whole.updated_at


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, r"lacks \['strategy', 'updated_at', 'observed_at', 'state'\]"),
        ({"state": {}}, "cannot be loaded: KeyError: 'weights'"),
        ({"state": None}, "cannot be loaded: AttributeError"),
        ({"state": {"weights": {"cats": 0.5, "dogs": 0.2, "birds": 0.3}}}, r"\['birds', 'cats', 'dogs'\], this rew"),
        ({"state": {"weights": {"cats": 1.0}}}, r"it has groups \['cats'\]"),
        ({"state": {"weights": {"cats": 0.5, "dogs": 0.2}}}, "set the weights"),
        ({"state": {"weights": {"cats": 0.5, "dogs": None}}}, "set the weights"),
        ({"updated_at": 2.5}, "updated_at of the saved state 2.5 must be an integer"),
    ],
)
def test_a_state_of_another_reweighter_is_refused_and_changes_nothing(changed: dict[str, Any], named: str) -> None:
    ours = reweighter()
    ours.update(INITIAL, step=8)
    before = ours.state_dict()
    with pytest.raises(ReweighterError, match=named):
        ours.load_state_dict({**before, **changed} if changed else {})
    with pytest.raises(ReweighterError, match="saved state lacks"):
        ours.load_state_dict(json.dumps(before))  # type: ignore[arg-type]
    assert ours.state_dict() == before


@pytest.mark.parametrize(("strategy", "vain"), [("odm", "update"), ("velocitune", "observe_batch"), ("static", None)])
def test_a_call_that_changes_no_weight_is_logged_once(
    strategy: str, vain: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ours = reweighter(strategy)
    caplog.clear()
    for _ in range(3):
        ours.update(INITIAL)
        ours.observe_batch(INITIAL, {"cats": 1, "dogs": 1})
    expected = [f"{vain} changes no weight under strategy '{strategy}'"] if vain else []
    assert [message.partition(":")[0] for message in caplog.messages] == expected


class Broken(Strategy):
    """A strategy of one's own whose second update goes wrong."""

    depends_on_total_steps = False

    def update(self, observation: Observation) -> np.ndarray:
        self.weights *= np.array([1.0, observation.losses["dogs"]])
        return self.weights


def test_weights_of_a_strategy_of_ones_own_are_checked() -> None:
    ours = VelocityReweighter(WEIGHTS, strategy=f"{__name__}:Broken")
    ours.update({"cats": 0.0, "dogs": 1.0})
    before = ours.state_dict()
    for wrong in (1e300, -1.0, 2.0):
        with pytest.raises(ReweighterError, match=r"strategy '.*:Broken' set the weights \[0.75, .* correct it"):
            ours.update({"cats": 0.0, "dogs": wrong})
        assert ours.state_dict() == before


class Named(Strategy):
    """A strategy of one's own that keeps its state in its own way."""

    depends_on_total_steps = False

    def __init__(self, *, initial_weights: dict[str, float], key: str) -> None:
        super().__init__(initial_weights=initial_weights)
        self.key = key

    def state_dict(self) -> dict[str, Any]:
        return {self.key: self.weights.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights = np.array(state[self.key])


@pytest.mark.parametrize("key", ["logits", "weights"])
def test_a_state_of_a_strategy_of_ones_own_has_its_own_form(key: str) -> None:
    def made(cats: float) -> VelocityReweighter:
        return VelocityReweighter({"cats": cats, "dogs": 1.0}, strategy=f"{__name__}:Named", options={"key": key})

    resumed = made(3.0)
    resumed.load_state_dict(made(1.0).state_dict())
    assert resumed.weights == {"cats": 0.5, "dogs": 0.5}


def test_means_of_pandas_and_counts_of_a_float_all_reduce_are_taken() -> None:
    losses: Any = pd.DataFrame({"label": ["cats", "dogs", "dogs"], "loss": [1.25, 3.0, 5.0]}).groupby("label").loss
    ours: Any = reweighter()
    assert ours.update(losses.mean(), step=32.0) == reweighter().update({"cats": 1.25, "dogs": 4.0}, step=32)
    ours, counts = reweighter("odm"), {"cats": np.float32(4), "dogs": 2.0}
    assert ours.observe_batch(INITIAL, counts) == reweighter("odm").observe_batch(INITIAL, {"cats": 4, "dogs": 2})
    with pytest.raises(ReweighterError, match=r"counts\['cats'\] 1.5 must be an integer"):
        ours.observe_batch(INITIAL, {"cats": 1.5, "dogs": 2})


def test_a_group_without_a_gap_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    VelocityReweighter(WEIGHTS, initial_losses=INITIAL, target_losses=INITIAL, options={"gap_policy": "hold"})
    assert "cats (target 2.000, initial 2.000)" in caplog.text


def test_reweighter_and_sampler_need_numpy_alone() -> None:
    code = (
        "import sys; from velocitune_core import MixtureBatchSampler, VelocityReweighter; "
        "from velocitune_core import own_loop; [getattr(own_loop, name) for name in own_loop.__all__]; "
        "VelocityReweighter({'a': 1, 'b': 1}, initial_losses={'a': 1, 'b': 1}, target_losses={'a': 0, 'b': 0}); "
        "assert not {'torch', 'transformers', 'pydantic', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
