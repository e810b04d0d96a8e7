"""Velocitune: two updates by hand, the gap policies, and a saved state that resumes identically."""

from __future__ import annotations

import json
import math

import pytest

from velocitune_core.strategies import Observation, Strategy, StrategyError, make_strategy

WEIGHTS = {"code": 0.5, "papers": 0.3, "general": 0.2}
INITIAL = {"code": 4.0, "papers": 5.0, "general": 4.0}
TARGET = {"code": 2.0, "papers": 3.0, "general": 3.0}
MEASURED = {"initial_loss": INITIAL, "target_loss": TARGET}
# `general` as a prototype measured it: worse in every proxy than before, so its target is above its initial loss
NO_GAP = {
    "initial_loss": {"code": 4.0, "general": 4.451},
    "target_loss": {"code": 2.0, "general": 4.60},
}
FIRST = {"code": 3.0, "papers": 3.5, "general": 3.0}  # velocities 1/2, 1/4, 0
SECOND = {"code": 2.5, "papers": 5.0, "general": 3.5}  # velocities 1/4, 1, 1/2


def observe(losses: dict[str, float], step: int = 10, since: int = 10, total: int = 100) -> Observation:
    return Observation(step=step, total_steps=total, steps_since_update=since, losses=losses)


def make(**options: object) -> Strategy:
    return make_strategy("velocitune", initial_weights=WEIGHTS, **{**MEASURED, **options})


def without_gap(policy: str, general: float = 0.4, **options: object) -> Strategy:
    weights = {"code": 1 - general, "general": general}
    return make_strategy("velocitune", initial_weights=weights, gap_policy=policy, **NO_GAP, **options)


def test_velocitune_over_two_updates() -> None:
    strategy = make()
    assert strategy.weights == pytest.approx([0.5, 0.3, 0.2])
    # w ∝ (0.5·e^½, 0.3·e^¼, 0.2) = (0.824361, 0.385208, 0.2), sum 1.409568
    assert strategy.update(observe(FIRST)) == pytest.approx([0.584832, 0.273280, 0.141888], abs=1e-6)
    assert strategy.velocity == pytest.approx([0.5, 0.25, 0.0])
    # the two updates compound: w ∝ (0.5·e^¾, 0.3·e^1¼, 0.2·e^½) = (1.058500, 1.047103, 0.329744), sum 2.435347
    assert strategy.update(observe(SECOND, step=20)) == pytest.approx([0.434640, 0.429961, 0.135399], abs=1e-6)
    assert strategy.velocity == pytest.approx([0.25, 1.0, 0.5])


def test_step_size_and_smoothing_reach_the_update() -> None:
    # η = 2: (0.5·e, 0.3·e^½, 0.2) = (1.359141, 0.494616, 0.2), sum 2.053757; c = 0.3: 0.7·w + 0.1
    weights = make(step_size=2.0, smoothing=0.3).update(observe(FIRST))
    assert weights == pytest.approx([0.563248, 0.268584, 0.168168], abs=1e-6)


def test_the_step_size_per_budget_does_not_depend_on_how_often_one_updates() -> None:
    weights = []
    for every in (10, 5):  # twice the updates
        strategy = make(step_size=3.0, step_size_per="budget")
        for step in range(every, 101, every):
            strategy.update(observe(FIRST, step=step, since=every))
        weights.append(strategy.weights)
    assert weights[0] == pytest.approx(weights[1], rel=1e-12)
    # over the whole budget, η = 3 is spent once: w ∝ (0.5·e^1½, 0.3·e^¾, 0.2) = (2.240845, 0.635100, 0.2), sum 3.075945
    assert weights[0] == pytest.approx([0.728506, 0.206473, 0.065021], abs=1e-6)


def test_policy_error_names_the_domain_and_its_losses() -> None:
    with pytest.raises(StrategyError, match=r"general \(target 4.600, initial 4.451\); set gap_policy to 'hold'"):
        without_gap("error")


def test_policy_freeze_lets_the_weight_decay() -> None:
    strategy = without_gap("freeze")
    # code's velocity is 1 throughout: w ∝ (0.6·e, 0.4), then (0.6·e², 0.4), however bad `general` gets
    strategy.update(observe({"code": 4.0, "general": 4.7}))
    assert strategy.weights[1] == pytest.approx(0.4 / (0.6 * math.e + 0.4))
    strategy.update(observe({"code": 4.0, "general": 5.31}))
    assert strategy.weights[1] == pytest.approx(0.4 / (0.6 * math.e**2 + 0.4))
    assert strategy.velocity.tolist() == [1.0, 0.0]


def test_freeze_is_the_default() -> None:
    strategy = make_strategy("velocitune", initial_weights={"code": 0.6, "general": 0.4}, **NO_GAP)
    assert strategy.warnings == without_gap("freeze").warnings


def test_policy_hold_keeps_the_initial_weight() -> None:
    strategy = make_strategy(
        "velocitune",
        initial_weights={"code": 0.5, "general": 0.2, "papers": 0.3},
        gap_policy="hold",
        initial_loss=NO_GAP["initial_loss"] | {"papers": 5.0},
        target_loss=NO_GAP["target_loss"] | {"papers": 3.0},
    )
    # the others share 0.8 in proportion 0.5·e^½ : 0.3·e^¼ = 0.824361 : 0.385208, that is 0.681533 : 0.318467
    weights = strategy.update(observe(FIRST | {"general": 5.0}))
    assert weights == pytest.approx([0.545226, 0.2, 0.254774], abs=1e-6)
    # then in proportion 0.5·e^¾ : 0.3·e^1¼ = 1.058500 : 1.047103, that is 0.502706 : 0.497294
    weights = strategy.update(observe(SECOND | {"general": 5.0}))
    assert weights == pytest.approx([0.402165, 0.2, 0.397835], abs=1e-6)


def test_policy_hold_with_nothing_to_update_changes_nothing() -> None:
    losses = {"initial_loss": {"a": 2.0, "b": 3.0}, "target_loss": {"a": 2.0, "b": 3.5}}
    strategy = make_strategy("velocitune", initial_weights={"a": 0.3, "b": 0.7}, gap_policy="hold", **losses)
    assert strategy.update(observe({"a": 1.0, "b": 9.0})).tolist() == [0.3, 0.7]


def test_policy_retain_raises_the_weight_with_forgetting() -> None:
    strategy = without_gap("retain")
    # scale 0.05·4.451 = 0.22255: at 4.5 the velocity is 0.049 / 0.22255 = 0.220175; code stands at 1/2
    strategy.update(observe({"code": 3.0, "general": 4.5}))
    assert strategy.velocity == pytest.approx([0.5, 0.220175], abs=1e-6)
    forgetful = 0.4 * math.exp(0.049 / 0.22255)
    assert strategy.weights[1] == pytest.approx(forgetful / (0.6 * math.exp(0.5) + forgetful))
    strategy.update(observe({"code": 2.0, "general": 5.31}))  # above the initial loss by more than the scale
    assert strategy.velocity.tolist() == [0.0, 1.0]
    strategy.update(observe({"code": 2.0, "general": 4.2}))  # better than the base model
    assert strategy.velocity.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("policy", "consequence"),
    [
        ("freeze", "their velocity is 0 and their weight shrinks at every update"),
        ("hold", "they keep their initial weight"),
        ("retain", "their weight grows as their loss rises above the initial loss"),
    ],
)
def test_warnings_name_the_domain_and_the_consequence(policy: str, consequence: str) -> None:
    assert without_gap(policy).warnings == [
        f"target not below initial loss: general (target 4.600, initial 4.451); gap policy {policy}: {consequence}"
    ]
    assert make(gap_policy=policy).warnings == []


@pytest.mark.parametrize("policy", ["freeze", "hold", "retain"])
def test_a_saved_state_resumes_identically(policy: str) -> None:
    unbroken, resumed = without_gap(policy, smoothing=0.01), without_gap(policy, smoothing=0.01)
    unbroken.update(observe({"code": 3.1, "general": 4.7}))
    resumed.load_state_dict(json.loads(json.dumps(unbroken.state_dict())))
    for strategy in (unbroken, resumed):
        strategy.update(observe({"code": 2.7, "general": 4.55}, step=20))
    assert unbroken.weights.tolist() == resumed.weights.tolist()
    assert unbroken.velocity.tolist() == resumed.velocity.tolist()


def test_velocity_in_nats_is_scaled_by_the_width_of_the_gap() -> None:
    """Gaps 2, 2 and 1, mean 5/3: pushes 0.5·1.2, 0.25·1.2 and 0·0.6."""
    strategy = make(velocity_unit="nats")
    # w ∝ (0.5·e^0.6, 0.3·e^0.3, 0.2) = (0.911059, 0.404958, 0.2), sum 1.516017
    assert strategy.update(observe(FIRST)) == pytest.approx([0.600956, 0.267120, 0.131925], abs=1e-6)
    assert strategy.velocity == pytest.approx([0.5, 0.25, 0.0])  # the reported velocity remains the share


def test_forgetting_in_nats_is_scaled_by_its_own_width() -> None:
    """Gap of code 2; `general` is 0.2 above its initial loss of 4.451, of at most 0.1·4.451: pushes 0.5 and 0.2/2."""
    strategy = without_gap("retain", retain_scale=0.1, velocity_unit="nats")
    weights = strategy.update(observe({"code": 3.0, "general": 4.651}))
    # w ∝ (0.6·e^0.5, 0.4·e^0.1) = (0.989233, 0.442068), sum 1.431301
    assert weights == pytest.approx([0.691143, 0.308857], abs=1e-6)


def test_initial_temperature_flattens_the_initial_weights() -> None:
    # w ∝ (√0.5, √0.3, √0.2) = (0.707107, 0.547723, 0.447214), sum 1.702043
    assert make(initial_temperature=2.0).weights == pytest.approx([0.415446, 0.321803, 0.262751], abs=1e-6)


@pytest.mark.parametrize("wrong", [{"velocity_unit": "bits"}, {"initial_temperature": 0.0}])
def test_invalid_options_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(StrategyError, match=next(iter(wrong))):
        make(**wrong)
