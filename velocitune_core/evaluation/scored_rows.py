"""Rows of token ids whose last tokens are scored, and their losses over all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from velocitune_core.parallel.ranks import Ranks, to_device

T = TypeVar("T")


@dataclass(frozen=True)
class ScoredRow:
    """A sequence of token ids, and how many of its last ones are predicted and counted."""

    tokens: Sequence[int] | NDArray[np.integer]  # (length,)
    scored: int  # at most length − 1
    bytes: int | None = None  # of the text of the scored tokens; None where it is not counted
    shortened: bool = False  # whether the end of an answer did not fit


@torch.no_grad()
def row_nats(loss: nn.Module, rows: Sequence[ScoredRow], ranks: Ranks) -> list[float]:
    """Return −log p of the scored tokens of each row in nats, in one forward pass per rank; every rank must call.

    Args:
        loss: a NextTokenLoss in eval mode.
        rows: of any lengths; every `world_size`-th is this rank's.

    A row's value depends on the other rows and on the ranks in its rounding alone: padding is not seen by a causal
    model, and of each value all ranks but one add zero.
    """
    nats = torch.zeros(len(rows), dtype=torch.float64, device=ranks.device)
    nats[ranks.rank :: ranks.world_size] = own_nats(loss, rows, ranks)
    return ranks.all_reduce(nats).tolist()


def own(rows: Sequence[T], ranks: Ranks) -> Sequence[T]:
    """Return the rows of one pass that this rank measures: every `world_size`-th."""
    return rows[ranks.rank :: ranks.world_size]


@torch.no_grad()
def own_nats(loss: nn.Module, rows: Sequence[ScoredRow], ranks: Ranks) -> Tensor:
    """Return −log p of the scored tokens of this rank's `own` rows in nats, (own rows,), float64 on its device.

    One forward pass; every rank must call with the same rows.
    """
    mine = own(rows, ranks)
    # Sharded parameters are gathered by all ranks in every pass: a rank without rows repeats one, uncounted.
    padded, scored = _padded(mine or rows[:1])
    next_token_loss: Any = loss
    packed = next_token_loss.packed(padded)
    losses = loss(to_device(padded, ranks.device), packed=packed).double()  # (batch, length − 1)
    return torch.where(to_device(scored, ranks.device), losses, 0.0).sum(dim=1)[: len(mine)]


def _padded(rows: Sequence[ScoredRow]) -> tuple[Tensor, Tensor]:
    """Return token ids (batch, length), padded on the right, and which predictions are scored, (batch, length − 1)."""
    lengths = torch.tensor([len(row.tokens) for row in rows])[:, None]
    counts = torch.tensor([row.scored for row in rows])[:, None]
    tokens = [torch.from_numpy(np.asarray(row.tokens, dtype=np.int64)) for row in rows]
    padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    position = torch.arange(1, padded.shape[1])  # of the predicted token
    return padded, (position >= lengths - counts) & (position < lengths)
