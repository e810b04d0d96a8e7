"""Properties of all strategies after any observations: weights on the simplex, saved states that resume identically."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velocitune_core.strategies import (
    PRESETS,
    REGISTRY,
    BatchObservation,
    Observation,
    Strategy,
    make_strategy,
    measured_options,
)

MANY = 1_000
VARIANTS = [
    *((name, {}) for name in [*REGISTRY, *PRESETS]),
    ("dbl", {"clamp": False, "smoothing": 0.0}),
    ("odm", {"form": "exp3"}),
    ("odm", {"warmup_steps": 3}),
    ("ado", {"count": "batch"}),
]
ODD_LOSSES = [0.0, 1e-300, 800.0, 1e6, math.nan, math.inf]


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[str, float], list[tuple[BatchObservation, Observation | None]]]:
    """Draw initial weights and the observations of up to 60 steps: batches, and an evaluation after some of them."""
    count = draw(st.integers(1, 5))
    names = [f"domain{i}" for i in range(count)]
    shares = draw(st.lists(st.sampled_from([0.0, 1e-9, 0.1, 1.0, 7.0]), min_size=count, max_size=count).filter(any))
    total_steps = draw(st.sampled_from([60, 300, 100_000]))
    odd, trend = draw(st.sampled_from([0.0, 0.1, 0.7])), draw(st.sampled_from([-0.3, 0.0, 0.3]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))  # element by element would take minutes
    observed = []
    for step in range(1, draw(st.integers(2, 60)) + 1):
        sequences = random.integers(0, 4, count)
        losses = random.uniform(1, 5, count) * step**trend
        losses = np.where(random.random(count) < odd, random.choice(ODD_LOSSES, count), losses)
        losses[sequences == 0] = np.nan
        batch = BatchObservation(step, total_steps, sequences, losses, excess=losses - 2.0)
        held_out = dict(zip(names, random.uniform(0, 9, count).tolist(), strict=True))
        evaluation = Observation(step, total_steps, 5, held_out) if random.random() < 0.3 else None
        observed.append((batch, evaluation))
    return dict(zip(names, shares, strict=True)), observed


def make(name: str, options: dict[str, object], weights: dict[str, float]) -> Strategy:
    stand_ins = {"initial_loss": 4.0, "target_loss": 2.0, "domain_tokens": 100.0}
    measured = {each: dict.fromkeys(weights, stand_ins[each]) for each in measured_options(name)}
    return make_strategy(name, initial_weights=weights, **measured, **options)


def show(strategy: Strategy, observed: tuple[BatchObservation, Observation | None]) -> None:
    batch, evaluation = observed
    strategy.observe_batch(batch)
    if evaluation is not None:
        strategy.update(evaluation)


def assert_on_simplex(weights: np.ndarray) -> None:
    assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
    assert weights.sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@settings(max_examples=15, deadline=None)
@given(run=runs())
def test_weights_stay_on_the_simplex(name: str, options: dict[str, object], run: tuple) -> None:
    weights, observed = run
    strategy = make(name, options, weights)
    for each in observed:
        show(strategy, each)
        assert_on_simplex(strategy.weights)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@settings(max_examples=15, deadline=None)
@given(run=runs(), break_at=st.floats(0, 1))
def test_a_saved_state_resumes_identically(name: str, options: dict[str, object], run: tuple, break_at: float) -> None:
    weights, observed = run
    middle = int(break_at * len(observed))
    unbroken, resumed = make(name, options, weights), make(name, options, weights)
    for each in observed[:middle]:
        show(unbroken, each)
    resumed.load_state_dict(json.loads(json.dumps(unbroken.state_dict(), allow_nan=False)))
    assert resumed.weights.tolist() == unbroken.weights.tolist()
    for each in observed[middle:]:
        show(unbroken, each)
        show(resumed, each)
        assert resumed.weights.tolist() == unbroken.weights.tolist()
    assert resumed.state_dict() == unbroken.state_dict()


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_thousand_domains(name: str, options: dict[str, object]) -> None:
    random = np.random.default_rng(0)
    strategy = make(name, options, {f"domain{i}": 1.0 + i % 7 for i in range(MANY)})
    for step in range(1, 61):
        sequences = random.multinomial(256, strategy.weights)
        losses = np.where(sequences > 0, random.normal(3, 0.1, MANY), np.nan)
        strategy.observe_batch(BatchObservation(step, 200, sequences, losses, excess=losses / 10))
        if step % 10 == 0:
            held_out = dict(zip(strategy.domains, random.normal(3, 0.1, MANY).tolist(), strict=True))
            strategy.update(Observation(step, 200, 10, held_out))
        assert_on_simplex(strategy.weights)
