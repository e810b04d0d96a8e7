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
from reweighters import INITIAL, TARGETS, WEIGHTS, reweighter

from velocitune_core import VelocityReweighter, update_weights
from velocitune_core.own_loop import ReweighterError
from velocitune_core.strategies import PRESETS, REGISTRY, Observation, Strategy

LEARNING_FROM_BATCHES = ("odm", "ado", "doremi")


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


def test_reweighter_and_sampler_need_numpy_alone() -> None:
    code = (
        "import sys; from velocitune_core import MixtureBatchSampler, VelocityReweighter; "
        "from velocitune_core import own_loop; [getattr(own_loop, name) for name in own_loop.__all__]; "
        "VelocityReweighter({'a': 1, 'b': 1}, initial_losses={'a': 1, 'b': 1}, target_losses={'a': 0, 'b': 0}); "
        "assert not {'torch', 'transformers', 'pydantic', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
