"""Learning velocity and the weight update: numbers worked out by hand, and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from velocitune_core.velocity import VelocityError, forgetting_velocity, learning_velocity, update_weights

E = math.e
SIZES = st.shared(st.integers(1, 12), key="K")
WEIGHTS = SIZES.flatmap(lambda size: arrays(float, size, elements=st.floats(1e-6, 1)))
VELOCITIES = SIZES.flatmap(lambda size: arrays(float, size, elements=st.floats(0, 1)))
STEP_SIZES = st.floats(0, 20)


def test_velocity_is_the_share_of_the_gap_still_open() -> None:
    # (3 − 2) / (4 − 2) = 1/2;  (3.5 − 3) / (5 − 3) = 1/4;  at the start 1, at the target 0
    velocity = learning_velocity([3.0, 3.5, 4.0, 2.0], [4.0, 5.0, 4.0, 4.0], [2.0, 3.0, 2.0, 2.0])
    assert velocity.tolist() == [0.5, 0.25, 1.0, 0.0]


def test_velocity_is_clipped_at_both_ends() -> None:
    # below its target: (1.5 − 2) / 2 = −1/4;  worse than at the start: (4.6 − 2) / 2 = 1.3
    assert learning_velocity([1.5, 4.6], [4.0, 4.0], [2.0, 2.0]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("target", [4.451, 4.60])  # a gap of nothing, and one of the wrong sign
@pytest.mark.parametrize("loss", [4.2, 4.451, 4.5, 4.60, 5.3])
def test_without_a_gap_the_velocity_is_zero(loss: float, target: float) -> None:
    assert learning_velocity([loss], [4.451], [target]).tolist() == [0.0]


def test_a_tiny_gap_does_not_overflow_into_a_warning() -> None:
    assert learning_velocity([3.0, 1.0], [2.0, 2.0], [2.0 - 4e-16, 2.0 - 4e-16]).tolist() == [1.0, 0.0]
    assert learning_velocity([5.0], [5e-324], [0.0]).tolist() == [1.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", range(3))
def test_losses_that_are_not_finite_are_named(which: int, bad: float) -> None:
    losses = [[3.0, 3.0], [4.0, 4.0], [2.0, 2.0]]
    losses[which][1] = bad
    with pytest.raises(VelocityError, match=rf"^{('loss', 'initial_loss', 'target_loss')[which]} .*{bad}"):
        learning_velocity(*losses)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(VelocityError, match=r"\(2,\), initial \(3,\), target \(2,\)"):
        learning_velocity([1, 2], [1, 2, 3], [1, 2])
    with pytest.raises(VelocityError, match="shapes differ"):
        update_weights([0.5, 0.5], [1.0])


def test_forgetting_velocity() -> None:
    # a twentieth of 4.0 is 0.2: 4.1 is half way there, 4.3 past it, 3.9 has forgotten nothing
    velocity = forgetting_velocity([4.1, 4.3, 3.9], [4.0, 4.0, 4.0], 0.05)
    assert velocity == pytest.approx([0.5, 1.0, 0.0])


def test_update_by_hand() -> None:
    # w ∝ (½·e¹, ½·e⁰) = (e, 1) / (e + 1) = (0.731059, 0.268941)
    assert update_weights([0.5, 0.5], [1, 0]) == pytest.approx([E / (E + 1), 1 / (E + 1)], rel=1e-15)
    # w ∝ (0.2·e^0.5, 0.3·e^0.25, 0.5·1) = (0.329744, 0.385208, 0.5), sum 1.214952
    assert update_weights([0.2, 0.3, 0.5], [0.5, 0.25, 0]) == pytest.approx([0.271405, 0.317056, 0.411539], abs=1e-6)


def test_step_size_multiplies_the_velocity() -> None:
    # η = 2: (e², 1) / (e² + 1) = (0.880797, 0.119203); η = 0 changes nothing
    assert update_weights([0.5, 0.5], [1, 0], step_size=2.0) == pytest.approx([E**2 / (E**2 + 1), 1 / (E**2 + 1)])
    assert update_weights([0.3, 0.7], [1, 0], step_size=0.0) == pytest.approx([0.3, 0.7], rel=1e-15)


def test_smoothing_mixes_in_the_uniform_distribution() -> None:
    # c = 0.1: 0.9·(0.731059, 0.268941) + 0.05 = (0.707953, 0.292047)
    assert update_weights([0.5, 0.5], [1, 0], smoothing=0.1) == pytest.approx([0.707953, 0.292047], abs=1e-6)
    assert update_weights([1.0, 0.0], [0, 1], smoothing=0.2) == pytest.approx([0.9, 0.1])  # brings a zero back
    assert update_weights([0.9, 0.1], [1, 0], smoothing=1.0).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("weights", "velocity", "message"),
    [
        ([0.0, 0.0], [0.5, 0.5], "not all zero"),
        ([1.5, -0.5], [0.5, 0.5], r"\[1.5, -0.5\] must be finite, non-negative"),
        ([math.nan, 0.5], [0.5, 0.5], "weights .*nan"),
        ([0.5, 0.5], [math.nan, 0.5], "velocity .*nan"),
    ],
)
def test_invalid_weights_and_velocities_are_refused(weights: list[float], velocity: list[float], message: str) -> None:
    with pytest.raises(VelocityError, match=message):
        update_weights(weights, velocity)


@given(WEIGHTS, VELOCITIES, STEP_SIZES, st.floats(0, 1))
def test_updated_weights_are_a_distribution(
    weights: np.ndarray, velocity: np.ndarray, step_size: float, smoothing: float
) -> None:
    updated = update_weights(weights, velocity, step_size=step_size, smoothing=smoothing)
    assert updated.sum() == pytest.approx(1, rel=1e-12)
    assert np.all(updated >= smoothing / len(weights) * (1 - 1e-12))


@given(WEIGHTS, VELOCITIES, st.randoms(use_true_random=False))
def test_the_order_of_domains_does_not_matter(weights: np.ndarray, velocity: np.ndarray, random) -> None:
    order = list(range(len(weights)))
    random.shuffle(order)
    expected = update_weights(weights, velocity, smoothing=0.1)[order]
    assert update_weights(weights[order], velocity[order], smoothing=0.1) == pytest.approx(expected, rel=1e-12)


@given(WEIGHTS, VELOCITIES, STEP_SIZES)
def test_slower_domains_gain_on_faster_ones(weights: np.ndarray, velocity: np.ndarray, step_size: float) -> None:
    growth = update_weights(weights, velocity, step_size=step_size) / (weights / weights.sum())
    by_velocity = growth[np.argsort(velocity)]
    assert np.all(by_velocity[1:] >= by_velocity[:-1] * (1 - 1e-9))


@given(WEIGHTS, st.floats(0, 1), STEP_SIZES)
def test_equal_velocities_change_nothing(weights: np.ndarray, velocity: float, step_size: float) -> None:
    updated = update_weights(weights, np.full_like(weights, velocity), step_size=step_size)
    assert updated == pytest.approx(weights / weights.sum(), rel=1e-12)


@given(WEIGHTS, VELOCITIES, STEP_SIZES)
def test_zero_stays_zero(weights: np.ndarray, velocity: np.ndarray, step_size: float) -> None:
    weights, velocity = np.append(weights, 0.0), np.append(velocity, 1.0)
    assert update_weights(weights, velocity, step_size=step_size)[-1] == 0.0


@given(WEIGHTS, VELOCITIES, st.sampled_from([1e-300, 750.0, 1e6, 1e300]))
def test_extreme_step_sizes_stay_finite(weights: np.ndarray, velocity: np.ndarray, step_size: float) -> None:
    updated = update_weights(weights, velocity, step_size=step_size)
    assert np.all(np.isfinite(updated))
    assert updated.sum() == pytest.approx(1)


@given(st.floats(1e-9, 1e9), st.floats(0, 1))
def test_one_domain_has_everything(weight: float, velocity: float) -> None:
    assert update_weights([weight], [velocity], smoothing=0.3) == pytest.approx([1.0], rel=1e-15)
