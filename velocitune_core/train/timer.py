"""Wall time of a run, by activity and in total."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Timer:
    """`with timer("evaluation"):` adds the time of the block to `timer.seconds["evaluation"]`.

    Args:
        now: a clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._start = now, now()
        self._earlier_total = 0.0
        self._since_lap: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def resume(self, seconds: Mapping[str, float], total: float) -> None:
        """Continue from the times recorded before the resume: `seconds` by activity, and in `total`."""
        self.seconds, self._earlier_total = dict(seconds), total

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[], float]]:
        """Yield a function that returns the seconds since entry, and after exit those of the whole block."""
        start = self._now()
        end: float | None = None
        try:
            yield lambda: (self._now() if end is None else end) - start
        finally:
            end = self._now()
            for totals in (self.seconds, self._since_lap):
                totals[name] = totals.get(name, 0.0) + end - start

    @property
    def total(self) -> float:
        """Seconds since this timer was made, plus the total before the resume.

        Includes what no activity was named for, such as loading the model. Time between a killed attempt's last
        checkpoint and the kill is not recorded anywhere.
        """
        return self._earlier_total + self._now() - self._start

    def lap(self, *names: str) -> float:
        """Return the seconds that this attempt has spent on `names` since they were last part of a lap."""
        return sum(self._since_lap.pop(name, 0.0) for name in names)
