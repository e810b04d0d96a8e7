"""Dynamic batch loading: updates by hand, with and without the clamp."""

from __future__ import annotations

import math

import pytest

from velocitune_core.strategies import Observation, Strategy, StrategyError, make_strategy

WEIGHTS = {"code": 0.5, "papers": 0.3, "general": 0.2}
TARGET = {"code": 2.0, "papers": 3.0, "general": 3.0}
FIRST = {"code": 3.0, "papers": 3.5, "general": 2.5}  # distances 1, ½, −½


def make(**options: object) -> Strategy:
    return make_strategy("dbl", initial_weights=WEIGHTS, **{"target_loss": TARGET, **options})


def observe(losses: dict[str, float]) -> Observation:
    return Observation(step=10, total_steps=100, steps_since_update=10, losses=losses)


def test_two_updates_of_the_paper() -> None:
    strategy = make(smoothing=0.0)
    # d = (1, ½, 0): w ∝ (0.5·e, 0.3·e^½, 0.2) = (1.359141, 0.494616, 0.2), sum 2.053757
    assert strategy.update(observe(FIRST)) == pytest.approx([0.661783, 0.240835, 0.097382], abs=1e-6)
    # d = (0, 0, ¼): w ∝ (1.359141, 0.494616, 0.2·e^¼ = 0.256805), sum 2.110562
    weights = strategy.update(observe({"code": 2.0, "papers": 2.9, "general": 3.25}))
    assert weights == pytest.approx([0.643971, 0.234353, 0.121676], abs=1e-6)


def test_smoothing_and_step_size() -> None:
    # η = 2: w ∝ (0.5·e², 0.3·e, 0.2) = (3.694528, 0.815485, 0.2), sum 4.710013, shares (0.784399, 0.173139, 0.042463);
    # c = 0.1: 0.9·w + 0.1/3
    weights = make(step_size=2.0, smoothing=0.1).update(observe(FIRST))
    assert weights == pytest.approx([0.739292, 0.189158, 0.071550], abs=1e-6)
    # by default c = 1e-4: 0.9999·0.661783 + 0.0001/3 = 0.661750
    assert make().update(observe(FIRST))[0] == pytest.approx(0.661750, abs=1e-6)


def test_without_the_clamp_a_domain_below_its_target_loses_more() -> None:
    # d = (1, ½, −½): w ∝ (1.359141, 0.494616, 0.2·e^−½ = 0.121306), sum 1.975063, then c = 1e-4
    weights = make(clamp=False).update(observe(FIRST))
    assert weights == pytest.approx([0.688115, 0.250439, 0.061446], abs=1e-6)


def test_at_target_nothing_moves() -> None:
    assert make(smoothing=0.0).update(observe(TARGET)) == pytest.approx([0.5, 0.3, 0.2])


def test_a_loss_that_is_not_finite_counts_as_at_target() -> None:
    broken = {"code": math.nan, "papers": math.inf, "general": 3.5}
    weights = make().update(observe(broken))
    assert weights.tolist() == make().update(observe(TARGET | {"general": 3.5})).tolist()


def test_a_weight_of_zero_comes_back_by_smoothing_alone() -> None:
    options = {"target_loss": {"a": 1.0, "b": 1.0}, "initial_weights": {"a": 1.0, "b": 0.0}}
    far = observe({"a": 1.0, "b": 5.0})
    assert make_strategy("dbl", smoothing=0.0, **options).update(far).tolist() == [1.0, 0.0]
    assert make_strategy("dbl", smoothing=0.1, **options).update(far) == pytest.approx([0.95, 0.05])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": -1}, "step_size -1"),
        ({"step_size": math.inf}, "step_size inf"),
        ({"smoothing": 1.5}, r"smoothing 1.5 in \[0, 1\]"),
        ({"target_loss": {"code": 2.0}}, r"target_loss is missing for \['papers', 'general'\]"),
        ({"target_loss": TARGET | {"code": math.nan}}, "target_loss .* must be finite"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        make(**options)


def test_the_target_is_needed() -> None:
    with pytest.raises(StrategyError, match=r"'dbl' needs the options \['target_loss'\]"):
        make_strategy("dbl", initial_weights=WEIGHTS)
