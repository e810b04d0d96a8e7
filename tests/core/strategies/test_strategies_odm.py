"""Online data mixing: both forms by hand, and losses whose exponential overflows."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from velocitune_core.strategies import BatchObservation, Strategy, StrategyError, make_strategy

NAN = math.nan


def make(**options: object) -> Strategy:
    return make_strategy("odm", initial_weights={"a": 0.75, "b": 0.25}, **options)


def batch(step: int, *losses: float) -> BatchObservation:
    values = np.array(losses)
    return BatchObservation(step=step, total_steps=100, sequences=np.where(np.isnan(values), 0, 4), losses=values)


def weights_after(strategy: Strategy, *batches: BatchObservation) -> list[float]:
    for each in batches:
        strategy.observe_batch(each)
    return strategy.weights.tolist()


def test_reward_form_over_three_batches() -> None:
    strategy = make()
    # R = 0.1·(2, 6) = (0.2, 0.6); ε_1 = min(1/2, √(ln 2 / 2) = 0.588705) = 1/2 leaves nothing to the rewards
    assert weights_after(strategy, batch(1, math.log(2), math.log(6))) == [0.5, 0.5]
    # R = (0.9·0.2 + 0.1·4, 0.6) = (0.58, 0.6), shares (0.491525, 0.508475); ε_2 = √(ln 2 / 4) = 0.416277;
    # w = 0.167445·shares + ε
    assert weights_after(strategy, batch(2, math.log(4), NAN)) == pytest.approx([0.498581, 0.501419], abs=1e-6)
    # R = (0.522 + 0.4, 0.54 + 0.6) = (0.922, 1.14), shares (0.447139, 0.552861); ε_8 = √(ln 2 / 16) = 0.208139
    weights = weights_after(strategy, batch(8, math.log(4), math.log(6)))
    assert weights == pytest.approx([0.469144, 0.530856], abs=1e-6)


def test_exp3_form_over_three_batches() -> None:
    strategy = make(form="exp3")
    # R = 0.1·(3/0.75, 2/0.25) = (0.4, 0.8)
    assert weights_after(strategy, batch(1, 3.0, 2.0)) == [0.5, 0.5]
    # R = (0.36 + 0.1·3/0.5, 0.8) = (0.96, 0.8); ε_1 = 1/2: softmax(0.48, 0.40) = (0.519989, 0.480011);
    # w = 0.167445·softmax + 0.416277
    assert weights_after(strategy, batch(2, 3.0, NAN))[0] == pytest.approx(0.503347, abs=1e-6)
    # R = (0.864 + 0.2/0.503347, 0.72 + 0.4/0.496653) = (1.261340, 1.525391); ε_2 = 0.416277:
    # softmax of a difference of −0.109918 = 0.472548; ε_3 = √(ln 2 / 6) = 0.339889; w = 0.320222·0.472548 + ε_3
    assert weights_after(strategy, batch(3, 2.0, 4.0))[0] == pytest.approx(0.491209, abs=1e-6)


def test_warmup_keeps_the_weights_and_collects_rewards() -> None:
    # the rewards are those of the first test, seen at last at step 8
    first, second = batch(1, math.log(2), math.log(6)), batch(2, math.log(4), NAN)
    strategy = make(warmup_steps=2)
    assert weights_after(strategy, first, second) == [0.75, 0.25]
    weights = weights_after(strategy, batch(8, math.log(4), math.log(6)))
    assert weights == pytest.approx([0.469144, 0.530856], abs=1e-6)


def test_a_loss_whose_exponential_overflows() -> None:
    # R_a : R_b = e^2000 : e^1999 = 0.731059 : 0.268941, ε_8 = 0.208139
    weights = weights_after(make(), batch(8, 2000.0, 1999.0))
    assert weights == pytest.approx([0.583721 * 0.731059 + 0.208139, 0.583721 * 0.268941 + 0.208139], abs=1e-5)


@pytest.mark.parametrize("form", ["reward", "exp3"])
def test_losses_that_are_not_finite_are_ignored(form: str) -> None:
    clean, broken = make(form=form), make(form=form)
    assert weights_after(make(form=form), batch(5, NAN, math.inf))[0] == (0.75 if form == "reward" else 0.5)
    weights_after(clean, batch(4, 2.0, 3.0), batch(5, 2.5, NAN))
    weights_after(broken, batch(4, 2.0, 3.0), batch(5, 2.5, math.inf))
    assert clean.weights.tolist() == broken.weights.tolist()


def test_a_domain_not_seen_yet_gets_the_exploration_alone() -> None:
    assert weights_after(make(), batch(8, NAN, 2.0)) == pytest.approx([0.208139, 0.791861], abs=1e-6)


@pytest.mark.parametrize("form", ["reward", "exp3"])
def test_a_weight_of_zero_is_explored(form: str) -> None:
    strategy = make_strategy("odm", initial_weights={"a": 1.0, "b": 0.0}, form=form)
    weights = weights_after(strategy, batch(8, 2.0, 9.0))  # an importance weight of 9/0 must not carry b away
    assert min(weights) >= 0.208139 - 1e-6
    assert sum(weights) == pytest.approx(1.0)


def test_the_initial_state_is_strict_json() -> None:
    state = json.loads(json.dumps(make().state_dict(), allow_nan=False))
    assert state["reward"] == {"a": None, "b": None}
    resumed = make()
    resumed.load_state_dict(state)
    assert weights_after(resumed, batch(8, 2.0, 3.0)) == weights_after(make(), batch(8, 2.0, 3.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "ucb"}, "form 'ucb' must be one of reward, exp3"),
        ({"decay": 1.0}, r"decay 1.0 must be in \[0, 1\)"),
        ({"warmup_steps": -1}, "warmup_steps -1 at least 0"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        make(**options)
