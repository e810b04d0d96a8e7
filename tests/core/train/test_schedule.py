"""Learning-rate schedules computed by hand, and properties of all of them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.config import Schedule
from velocitune_core.train.schedule import decay_start, learning_rate_factor, shared_steps, warmup_steps

SCHEDULES = st.one_of(
    st.builds(Schedule, warmup_fraction=st.floats(0, 0.99), final_fraction=st.floats(0, 1)),
    st.floats(0.01, 1).flatmap(
        lambda decay: st.builds(
            Schedule,
            kind=st.just("wsd"),
            warmup_fraction=st.floats(0, min(0.99, 1 - decay)),
            decay_fraction=st.just(decay),
            final_fraction=st.floats(0, 1),
        )
    ),
)


def factors(schedule: Schedule, total: int) -> list[float]:
    return [learning_rate_factor(schedule, step, total) for step in range(total)]


def test_cosine_by_hand() -> None:
    # two steps of warm-up, then progress 1/4, 1/2, 3/4, 1 along 0.1 + 0.9·(1 + cos πp)/2
    quarter = math.sqrt(0.5)
    schedule = Schedule(kind="cosine", warmup_fraction=0.34, final_fraction=0.1)
    assert factors(schedule, 6) == pytest.approx(
        [0.5, 1.0, 0.1 + 0.45 * (1 + quarter), 0.55, 0.1 + 0.45 * (1 - quarter), 0.1]
    )


def test_wsd_by_hand() -> None:
    # two of ten steps warm up, the last four fall from 1 to 0.2 in equal steps of 0.2
    schedule = Schedule(kind="wsd", warmup_fraction=0.2, decay_fraction=0.4, final_fraction=0.2)
    assert factors(schedule, 10) == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_without_warmup_and_decay_the_rate_is_constant() -> None:
    assert factors(Schedule(kind="cosine", warmup_fraction=0, final_fraction=1), 5) == pytest.approx([1.0] * 5)


@given(SCHEDULES, st.integers(1, 300))
def test_factors_stay_between_zero_and_the_peak(schedule: Schedule, total: int) -> None:
    assert all(-1e-12 <= factor <= 1 + 1e-12 for factor in factors(schedule, total))


@given(SCHEDULES, st.integers(1, 300))
def test_the_last_step_has_the_final_fraction(schedule: Schedule, total: int) -> None:
    if round(schedule.warmup_fraction * total) < total:  # else all of the run is warm-up
        last = learning_rate_factor(schedule, total - 1, total)
        assert last == pytest.approx(schedule.final_fraction, abs=1e-9)


@given(SCHEDULES, st.integers(1, 300))
def test_it_rises_through_the_warmup_and_falls_after_it(schedule: Schedule, total: int) -> None:
    warmup = round(schedule.warmup_fraction * total)
    rates = factors(schedule, total)
    assert all(a < b for a, b in pairwise(rates[:warmup]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[warmup:]))


def test_warmup_steps_stand_in_for_the_fraction() -> None:
    schedule = Schedule(kind="wsd", warmup_fraction=0.5, warmup_steps=2, decay_fraction=0.4, final_fraction=0.2)
    assert factors(schedule, 10) == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert (warmup_steps(schedule, 10), warmup_steps(schedule, 10**6), decay_start(schedule, 10)) == (2, 2, 6)
    assert warmup_steps(Schedule(warmup_fraction=0.25), 10) == 2


def test_runs_of_two_lengths_share_what_comes_before_the_first_decay() -> None:
    schedule = Schedule(kind="wsd", warmup_steps=2, decay_fraction=0.4)
    assert shared_steps(schedule, 10, schedule, 100) == 6 == shared_steps(schedule, 100, schedule, 10)
    late = Schedule(kind="wsd", warmup_steps=2, decay_fraction=0.1)
    assert shared_steps(schedule, 10, late, 100) == 6  # what comes after may differ
    assert shared_steps(schedule, 10, Schedule(kind="wsd", warmup_steps=3), 100) == 0
    assert shared_steps(Schedule(kind="wsd"), 40, Schedule(kind="wsd"), 80) == 0  # 2 and 4 steps of warm-up
    assert shared_steps(Schedule(kind="cosine", warmup_steps=5), 40, Schedule(kind="wsd", warmup_steps=5), 80) == 5


@given(SCHEDULES, st.integers(1, 60), SCHEDULES, st.integers(1, 60))
def test_shared_steps_have_equal_rates_and_leave_out_the_last(a: Schedule, n: int, b: Schedule, m: int) -> None:
    shared = shared_steps(a, n, b, m)
    assert 0 <= shared < min(n, m)
    assert factors(a, n)[:shared] == factors(b, m)[:shared]
    assert shared == min(n, m) - 1 or factors(a, n)[shared] != factors(b, m)[shared]
