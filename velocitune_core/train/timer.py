"""Wall time by what it was spent on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Timer:
    """`with clock("evaluation"):` adds to `clock.seconds["evaluation"]`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._laps: dict[tuple[str, ...], float] = {}
        self._earlier: dict[str, float] = {}  # spent before the resumption

    def resume(self, seconds: Mapping[str, float]) -> None:
        """Go on from what an earlier life of the run has spent."""
        self.seconds, self._earlier, self._laps = dict(seconds), dict(seconds), {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[], float]]:
        """Yields a function that tells the seconds since entry, and after exit the whole span."""
        start = time.perf_counter()
        end: float | None = None
        try:
            yield lambda: (end or time.perf_counter()) - start
        finally:
            end = time.perf_counter()
            self.seconds[name] = self.seconds.get(name, 0.0) + end - start

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def lap(self, *names: str) -> float:
        """Seconds spent on `names` since the last call with them; at first, since the clock's start or resumption."""
        now = sum(self.seconds.get(name, 0.0) for name in names)
        before = self._laps.get(names, sum(self._earlier.get(name, 0.0) for name in names))
        self._laps[names] = now
        return now - before
