"""Losses of documents in packed rows, from a model that is given one of them at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel


def alone(model: PreTrainedModel, row: Tensor, lengths: Sequence[int]) -> Tensor:
    """Nats of each prediction of a row, (length − 1,), from the model's own logits of one document at a time."""
    nats, first = [], 0
    for length in lengths:
        document, targets = row[first : first + length], row[first + 1 : first + length + 1]
        logits = model(input_ids=document[None], use_cache=False).logits[0, : len(targets)]
        nats.append(F.cross_entropy(logits.float(), targets, reduction="none"))
        first += length
    return torch.cat(nats)
