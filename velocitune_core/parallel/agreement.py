"""Do work that may fail on one rank so that every rank gets the failure and none waits for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from velocitune_core.parallel.ranks import Ranks

T = TypeVar("T")

MESSAGE_BYTES = 500  # of an error, when it is exchanged between ranks


class PhaseError(Exception):
    """A phase that failed on at least one rank; the message is that of the lowest such rank."""


def together(work: Callable[[], T] | None, ranks: Ranks, *, over_checkpoint_group: bool = False) -> T | None:
    """Do this rank's part of a phase, if any, and agree with the others on its outcome; every rank must call.

    The work must contain no collective: a rank that fails in it would leave the others waiting.

    Raises PhaseError on all ranks if it failed on one, whatever the error.
    """
    result, problem = None, None
    try:
        result = work() if work is not None else None
    except Exception as error:  # any error must reach the agreement, or the other ranks wait for this one
        problem = str(error) or repr(error)
    if ranks.any(problem is not None, over_checkpoint_group=over_checkpoint_group):
        message = (problem or "").encode()[:MESSAGE_BYTES]
        problems = gather(message, MESSAGE_BYTES, ranks, over_checkpoint_group=over_checkpoint_group)
        rank, found = next((rank, text) for rank, each in enumerate(problems) if (text := each.rstrip(b"\0")))
        where = f"rank {rank}: " if ranks.world_size > 1 else ""
        raise PhaseError(where + found.decode("utf-8", errors="replace"))
    return result


def gather(content: bytes, length: int, ranks: Ranks, *, over_checkpoint_group: bool = False) -> list[bytes]:
    """Return the `content` of every rank, padded with zeros to `length` bytes; every rank must call."""
    rows = torch.zeros(ranks.world_size, length, dtype=torch.int64)
    rows[ranks.rank, : len(content)] = torch.tensor(list(content), dtype=torch.int64)
    return [bytes(row) for row in ranks.sum(rows, over_checkpoint_group=over_checkpoint_group).tolist()]
