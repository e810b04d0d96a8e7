"""DoReMi: two steps by hand, its state, and the refusal of a run without a reference model."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from velocitune_core.strategies import BatchObservation, StrategyError
from velocitune_core.strategies.doremi import DoReMi

WEIGHTS = {"code": 0.5, "papers": 0.3, "general": 0.2}


def batch(excess: list[float] | None, step: int = 1) -> BatchObservation:
    return BatchObservation(
        step=step,
        total_steps=10,
        sequences=np.array([4, 2, 2]),
        losses=np.array([3.0, 3.0, 3.0]),
        excess=None if excess is None else np.array(excess),
    )


def test_two_steps_by_hand() -> None:
    strategy = DoReMi(initial_weights=WEIGHTS, smoothing=0.1)
    assert strategy.weights == pytest.approx([0.5, 0.3, 0.2])
    # λ = (0.4, 0.2, 0), `general` being absent so far: w ∝ (0.5·e^0.4, 0.3·e^0.2, 0.2) = (0.745912, 0.366421, 0.2),
    # sum 1.312333, shares (0.568386, 0.279213, 0.152400), then 0.9·w + 0.1/3
    strategy.observe_batch(batch([0.4, 0.2, math.nan]))
    assert strategy.weights == pytest.approx([0.544881, 0.284625, 0.170494], abs=1e-6)
    # λ = (0.4 as before, 0.1, 0.6): w ∝ (0.812867, 0.314560, 0.310660), sum 1.438086,
    # shares (0.565242, 0.218735, 0.216023), then 0.9·w + 0.1/3
    strategy.observe_batch(batch([math.nan, 0.1, 0.6], step=2))
    assert strategy.weights == pytest.approx([0.542051, 0.230195, 0.227754], abs=1e-6)


def test_the_state_is_the_weights_and_the_last_excess() -> None:
    strategy = DoReMi(initial_weights=WEIGHTS)
    strategy.observe_batch(batch([0.4, 0.2, math.nan]))
    assert strategy.state_dict()["excess"] == {"code": 0.4, "papers": 0.2, "general": 0.0}
    assert set(strategy.state_dict()) == {"weights", "excess"}
    resumed = DoReMi(initial_weights=WEIGHTS)
    resumed.load_state_dict(json.loads(json.dumps(strategy.state_dict())))
    for each in (strategy, resumed):
        each.observe_batch(batch([math.nan, 0.1, 0.6], step=2))
    assert resumed.weights.tolist() == strategy.weights.tolist()


def test_defaults_are_the_papers() -> None:
    strategy = DoReMi(initial_weights={"a": 1.0, "b": 1.0})
    strategy.observe_batch(batch([1.0, 0.0]))
    # e / (e + 1) = 0.731059; c = 1e-3: 0.999·0.731059 + 0.0005
    assert strategy.weights[0] == pytest.approx(0.730828, abs=1e-6)


def test_a_negative_excess_counts_as_none() -> None:
    below, at = DoReMi(initial_weights=WEIGHTS), DoReMi(initial_weights=WEIGHTS)
    below.observe_batch(batch([0.3, -2.0, 0.1]))
    at.observe_batch(batch([0.3, 0.0, 0.1]))
    assert below.weights.tolist() == at.weights.tolist()


def test_a_run_without_a_reference_model_is_refused() -> None:
    with pytest.raises(StrategyError, match="use it in a search run with a trained reference model"):
        DoReMi(initial_weights=WEIGHTS).observe_batch(batch(None))


@pytest.mark.parametrize("options", [{"step_size": math.inf}, {"smoothing": -0.1}])
def test_invalid_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(StrategyError, match=next(iter(options))):
        DoReMi(initial_weights=WEIGHTS, **options)
