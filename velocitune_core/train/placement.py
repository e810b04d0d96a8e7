"""Place a model's loss on the device of a rank, in the precision of the run and sharded over its ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from velocitune_core.config import LOGITS_AT_ONCE, LOGITS_AT_ONCE_ON_GPU
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.model.modules import transformer_layers
from velocitune_core.parallel.fsdp import shard
from velocitune_core.parallel.ranks import Ranks
from velocitune_core.train.precision import uses_bfloat16

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def placed_loss(model: PreTrainedModel, precision: str, ranks: Ranks, *, compiled: bool = False) -> NextTokenLoss:
    """Return the loss of a model on this rank's device; every rank must call.

    Training and evaluation both compute it here, so that their losses have the same arithmetic.

    Args:
        precision: of matrix products: float32, bfloat16 or auto.
        compiled: compile the layers and the output matrix with the loss.
    """
    if ranks.world_size == 1:  # with more, FSDP moves one layer at a time, and never holds all of them
        torch.nn.Module.to(model, ranks.device)
    at_once = LOGITS_AT_ONCE_ON_GPU if ranks.device.type == "cuda" else LOGITS_AT_ONCE
    loss = NextTokenLoss(model, at_once, compile_head=compiled)
    layers = transformer_layers(model)
    if compiled:
        for layer in layers:  # one by one: they are alike, so one compilation serves all
            layer.compile()
    shard(loss, layers, ranks, torch.bfloat16 if uses_bfloat16(precision, ranks.device) else None)
    return loss
