"""Held-out loss per domain, Σ nats / Σ tokens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from velocitune_core.evaluation.scored_rows import ScoredRow, own, own_nats
from velocitune_core.parallel.ranks import Ranks, to_device


@torch.no_grad()
def evaluate(
    loss: nn.Module,
    held_out: Mapping[str, np.ndarray],
    *,
    batch_sequences: int,
    ranks: Ranks,
) -> dict[str, float]:
    """Return the held-out loss of every domain in nats per token; every rank must call.

    Args:
        loss: a NextTokenLoss.
        held_out: (sequences, length) of token ids by domain.
        batch_sequences: sequences per forward pass and rank; a batch may span domains, so small domains cost little.

    Sums are kept in float64 and added over all ranks before they are divided, so the result depends neither on the
    batch size, nor on a smaller last batch, nor on the number of ranks.
    """
    names = list(held_out)
    rows = [(number, ScoredRow(row, len(row) - 1)) for number, name in enumerate(names) for row in held_out[name]]
    nats = torch.zeros(len(names), dtype=torch.float64, device=ranks.device)
    was_training = loss.training
    loss.eval()
    at_once = batch_sequences * ranks.world_size
    for start in range(0, len(rows), at_once):
        batch = rows[start : start + at_once]
        owners = torch.tensor([number for number, _ in own(batch, ranks)], dtype=torch.long)
        nats.index_add_(0, to_device(owners, ranks.device), own_nats(loss, [row for _, row in batch], ranks))
    loss.train(was_training)
    totals = ranks.all_reduce(nats).tolist()
    tokens = [rows.shape[0] * (rows.shape[1] - 1) for rows in held_out.values()]
    return {name: total / count for name, total, count in zip(names, totals, tokens, strict=True)}
