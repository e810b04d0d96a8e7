"""Wall time by purpose, over a run's several lives."""

from __future__ import annotations

import time

import pytest

from velocitune_core.train.timer import Timer


def test_seconds_add_up_by_name() -> None:
    clock = Timer()
    for _ in range(2):
        with clock("training") as seconds:
            time.sleep(0.02)
        with clock("sampling"):
            pass
    assert clock.seconds["training"] >= 0.04
    assert clock.total == sum(clock.seconds.values())
    assert 0.02 <= seconds() < clock.seconds["training"]
    assert seconds() == seconds()  # stands still after the span


def test_a_span_that_fails_counts() -> None:
    clock = Timer()
    with pytest.raises(KeyError), clock("training"):
        raise KeyError
    assert "training" in clock.seconds


def test_a_lap_is_the_time_since_the_last() -> None:
    clock = Timer()
    clock.seconds = {"training": 3.0, "sampling": 1.0, "evaluation": 9.0}
    assert clock.lap("training", "sampling") == 4.0
    clock.seconds["training"] += 2.5
    assert clock.lap("training", "sampling") == 2.5
    assert clock.lap("evaluation") == 9.0


def test_the_first_lap_after_a_resumption_leaves_out_what_was_spent_before() -> None:
    """Or the first speed that a resumed run reports would be of all its steps so far, divided by a few."""
    clock = Timer()
    clock.resume({"training": 100.0, "sampling": 5.0})
    clock.seconds["training"] += 2.0
    assert clock.lap("training", "sampling") == 2.0
    assert clock.total == 107.0
