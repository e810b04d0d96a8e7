"""Load a model and place its loss on the device of a rank, in the precision of the run and sharded over its ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from velocitune_core.config import LOGITS_AT_ONCE, LOGITS_AT_ONCE_ON_GPU
from velocitune_core.model.causality import check_causal
from velocitune_core.model.documents import check_document_mask
from velocitune_core.model.folder import ModelError
from velocitune_core.model.io import load_model, model_without_weights
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.model.modules import transformer_layers
from velocitune_core.parallel.fsdp import fill, reshard, shard
from velocitune_core.parallel.ranks import Ranks
from velocitune_core.train.compilation import compile_layers
from velocitune_core.train.precision import uses_bfloat16

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Prepare = Callable[["PreTrainedModel"], "PreTrainedModel"]


def loaded_loss(
    path: str,
    precision: str,
    ranks: Ranks,
    prepare: Prepare,
    *,
    compiled: Callable[[PreTrainedModel], bool] = lambda _: False,
    document_start: int | None = None,
) -> NextTokenLoss:
    """Return the loss of a folder's model on this rank's device; every rank must call.

    Training and evaluation both compute it here, so that their losses have the same arithmetic. Of several ranks the
    main one alone reads the weights, and sends each of the others its shards.

    Args:
        precision: of matrix products: float32, bfloat16 or auto.
        prepare: called with the model, before it is sharded and, on several ranks, before it has weights.
        compiled: whether to compile the layers of a model, and its output matrix with the loss; called before it is
            sharded.
        document_start: id of the token that documents begin with, if attention is to stay inside a document.

    Raises ModelError on all ranks if one of them cannot load, the model uses later tokens, or attention cannot be kept
    inside a document.
    """
    alone, found, problem = ranks.world_size == 1, None, None
    try:
        found = load_model(path) if alone or ranks.is_main else model_without_weights(path)
    except ModelError as error:
        problem = error
    if ranks.any(problem is not None) or found is None:
        raise problem or ModelError(f"model.path: another rank cannot load the model of {path}")
    model = prepare(found if alone else model_without_weights(path))
    loss = _sharded(model, precision, ranks, compiled, document_start)
    if not alone:
        fill(model, found if ranks.is_main else None, ranks.device)
        model.tie_weights()
        model.generation_config = found.generation_config  # of the folder; the main rank will save it
    check_causal(loss, path, torch.bfloat16 if uses_bfloat16(precision, ranks.device) else torch.float32, ranks.device)
    if document_start is not None:
        check_document_mask(loss, document_start, ranks.device)
    reshard(loss)
    return loss


def _sharded(
    model: PreTrainedModel,
    precision: str,
    ranks: Ranks,
    compiles: Callable[[PreTrainedModel], bool],
    document_start: int | None,
) -> NextTokenLoss:
    if ranks.world_size == 1:
        torch.nn.Module.to(model, ranks.device)
    at_once = LOGITS_AT_ONCE_ON_GPU if ranks.device.type == "cuda" else LOGITS_AT_ONCE
    compiled = compiles(model)
    loss = NextTokenLoss(model, at_once, compile_head=compiled, document_start=document_start)
    layers = transformer_layers(model)
    if compiled:
        compile_layers(layers, ranks.device)
    shard(loss, layers, ranks, torch.bfloat16 if uses_bfloat16(precision, ranks.device) else None)
    return loss
