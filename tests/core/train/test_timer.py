"""Wall time by activity and in total, over the attempts of a run."""

from __future__ import annotations

import pytest

from velocitune_core.train.timer import Timer


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timer(clock: Clock) -> Timer:
    return Timer(clock)


def spend(timer: Timer, clock: Clock, name: str, seconds: float) -> None:
    with timer(name):
        clock.seconds += seconds


def test_seconds_add_up_by_name(timer: Timer, clock: Clock) -> None:
    spend(timer, clock, "training", 3.0)
    spend(timer, clock, "sampling", 0.5)
    spend(timer, clock, "training", 4.0)
    assert timer.seconds == {"training": 7.0, "sampling": 0.5}


def test_the_block_is_measured_while_it_runs_and_afterwards(timer: Timer, clock: Clock) -> None:
    with timer("training") as seconds:
        clock.seconds += 2.0
        assert seconds() == 2.0
        clock.seconds += 1.0
    clock.seconds += 50.0
    assert seconds() == 3.0


def test_a_block_that_fails_counts(timer: Timer, clock: Clock) -> None:
    with pytest.raises(KeyError), timer("training"):
        clock.seconds += 2.0
        raise KeyError
    assert timer.seconds == {"training": 2.0}


def test_the_total_is_the_wall_time_and_not_the_sum_of_activities(timer: Timer, clock: Clock) -> None:
    clock.seconds += 10.0  # the model is loaded
    spend(timer, clock, "training", 3.0)
    assert timer.total == 13.0


def test_a_lap_is_the_time_since_the_last(timer: Timer, clock: Clock) -> None:
    spend(timer, clock, "training", 3.0)
    spend(timer, clock, "sampling", 1.0)
    spend(timer, clock, "evaluation", 9.0)
    assert timer.lap("training", "sampling") == 4.0
    spend(timer, clock, "training", 2.5)
    assert timer.lap("training", "sampling") == 2.5
    assert timer.lap("training", "sampling") == 0.0
    assert timer.lap("evaluation") == 9.0


def test_a_resumed_run_adds_to_its_earlier_times_and_begins_a_new_lap(timer: Timer, clock: Clock) -> None:
    """Or the first speed that it reports would be of all its steps so far, divided by a few."""
    clock.seconds += 4.0
    timer.resume({"training": 100.0, "sampling": 5.0}, total=120.0)
    spend(timer, clock, "training", 2.0)
    assert timer.lap("training", "sampling") == 2.0
    assert timer.seconds == {"training": 102.0, "sampling": 5.0}
    assert timer.total == 126.0
