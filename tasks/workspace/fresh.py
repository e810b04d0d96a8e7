"""`--fresh`: runs that began before the command was given are started over instead of continued.

The moment is kept in the environment, so that it reaches the workers of a cluster and a retried task continues what
this command began.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

FRESH_SINCE = "VELOCITUNE_FRESH_SINCE"  # seconds since the epoch


@contextmanager
def starting_over(fresh: bool) -> Iterator[None]:
    """Start over, inside, every run that began before; without `fresh`, do nothing."""
    if not fresh or FRESH_SINCE in os.environ:
        yield
        return
    os.environ[FRESH_SINCE] = str(time.time())
    try:
        yield
    finally:
        del os.environ[FRESH_SINCE]


def fresh_since() -> float | None:
    """Return the moment before which a run's start makes it be started over; None: none is."""
    moment = os.environ.get(FRESH_SINCE)
    return None if moment is None else float(moment)
