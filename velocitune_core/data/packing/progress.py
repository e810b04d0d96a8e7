"""What is reported of a domain while it is packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of packing one domain."""

    documents: int  # read, including those of interrupted runs
    tokens: int  # of whole training sequences so far
    resumed_at: int | None  # document at which this run resumed; None if it started at the first
    tokenised: int  # documents tokenised by this run


Watcher = Callable[[Progress], None]
