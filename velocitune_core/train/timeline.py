"""The steps that led to a run's state, out of the events of all its attempts.

A resume abandons the steps after its checkpoint, and the run repeats them. The repeated values may be others, as on
another machine, so readers of events take those of the last attempt.
"""

from __future__ import annotations

from collections.abc import Iterable

from velocitune_core.train.events import Event, Finished, Started, Warned


def timeline(logged: Iterable[Event]) -> list[Event]:
    """Return the events without those of abandoned steps; starts and warnings of all attempts stay."""
    kept: dict[tuple[str, int, int], Event] = {}
    for number, event in enumerate(logged):
        if isinstance(event, Started):
            kept = {key: each for key, each in kept.items() if not is_abandoned(each, event)}
        key = (event.event, event.step, number if isinstance(event, Started | Warned) else 0)
        kept.pop(key, None)  # one of the checkpoint's own step, logged after the save and now again
        kept[key] = event
    return list(kept.values())


def last_abandoning_attempt(logged: Iterable[Event]) -> int:
    """Return the number of the last attempt that abandoned steps of earlier ones, 0 if none did."""
    found, highest = 0, -1
    for event in logged:
        if isinstance(event, Started):
            resumed_from = -1 if event.resumed_from is None else event.resumed_from
            if highest > resumed_from:
                found, highest = event.attempt, resumed_from
        elif not isinstance(event, Warned):
            highest = max(highest, event.step)
    return found


def is_abandoned(event: Event, started: Started) -> bool:
    """Return whether an event of an earlier attempt is of steps that the attempt just started repeats."""
    if isinstance(event, Started | Warned):
        return False
    return isinstance(event, Finished) or started.resumed_from is None or event.step > started.resumed_from
