"""The steps that led to a run's state: what a resume abandoned is left out, whatever values the repeated steps have."""

from __future__ import annotations

from typing import Any

import event_samples
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.train.events import Checkpointed, Evaluated, Event, Finished, Reweighted, Started, Warned
from velocitune_core.train.timeline import last_abandoning_attempt, timeline


def started(attempt: int, resumed_from: int | None) -> Started:
    return event_samples.started(attempt=attempt, step=resumed_from or 0, resumed_from=resumed_from)


def evaluated(attempt: int, step: int) -> Evaluated:
    return Evaluated(attempt=attempt, step=step, tokens=step, losses={"code": 1.0 * attempt}, seconds=0.1)


def seen(logged: list[Event]) -> list[tuple[int, str, int]]:
    return [(event.attempt, event.event, event.step) for event in timeline(logged)]


def test_the_steps_after_a_checkpoint_are_those_of_the_attempt_that_resumed_from_it() -> None:
    weights: dict[str, Any] = {"tokens": 0, "weights": {"code": 1.0}, "seconds": 0.1}
    logged: list[Event] = [
        started(1, None),
        Reweighted(step=0, **weights),
        evaluated(1, 2),
        Checkpointed(step=2, path="step-2", seconds=0.1),
        evaluated(1, 4),
        Reweighted(step=4, **weights),
        Warned(step=5, message="the disk is full"),
        started(2, 2),
        evaluated(2, 4),
    ]
    assert seen(logged) == [
        (1, "started", 0),
        (1, "reweighted", 0),
        (1, "evaluated", 2),
        (1, "checkpointed", 2),
        (1, "warned", 5),  # it is no value of a step: it happened
        (2, "started", 2),
        (2, "evaluated", 4),
    ]
    assert last_abandoning_attempt(logged) == 2


def test_a_run_without_a_checkpoint_starts_again() -> None:
    logged: list[Event] = [started(1, None), evaluated(1, 2), started(2, None), evaluated(2, 2)]
    assert seen(logged) == [(1, "started", 0), (2, "started", 0), (2, "evaluated", 2)]


def test_what_is_logged_again_after_the_last_checkpoint_is_taken_once() -> None:
    """The last evaluation and the end may come after the checkpoint of the last step."""
    logged: list[Event] = [
        started(1, None),
        evaluated(1, 9),
        Finished(attempt=1, step=9, seconds=1.0),
        started(2, 9),
        evaluated(2, 9),
        Finished(attempt=2, step=9, seconds=2.0),
    ]
    assert seen(logged) == [(1, "started", 0), (2, "started", 9), (2, "evaluated", 9), (2, "finished", 9)]


def test_a_stop_with_a_checkpoint_abandons_nothing() -> None:
    logged: list[Event] = [started(1, None), evaluated(1, 2), evaluated(1, 4), started(2, 4), evaluated(2, 6)]
    assert timeline(logged) == logged
    assert last_abandoning_attempt(logged) == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6))
def test_the_timeline_is_what_the_last_attempt_to_take_each_step_logged(attempts: list[tuple[int, int]]) -> None:
    """Any number of kills: an attempt resumes at a step that was reached and goes on for some."""
    logged: list[Event] = []
    owner: list[int] = []  # attempt of step 1, 2, …
    for attempt, (back, further) in enumerate(attempts, 1):
        start = max(0, len(owner) - back)
        logged.append(started(attempt, start or None))
        del owner[start:]
        for _ in range(further):
            owner.append(attempt)
            logged.append(evaluated(attempt, len(owner)))
    kept = [(event.attempt, event.step) for event in timeline(logged) if isinstance(event, Evaluated)]
    assert kept == [(attempt, step) for step, attempt in enumerate(owner, 1)]
