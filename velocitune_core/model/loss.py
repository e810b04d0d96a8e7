"""Next-token loss whose logits are made in chunks where those of a whole batch would be large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from velocitune_core.config import LOGITS_AT_ONCE
from velocitune_core.model.documents import document_positions, masks_without_waiting
from velocitune_core.model.head import LinearHead, linear_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NextTokenLoss(nn.Module):
    """Map token ids to the loss of each prediction of a causal language model.

    A batch with more than `logits_at_once` logits has them computed in chunks of tokens, and computed again in the
    backward pass, so that no more than one chunk is in memory. This needs a head that is an output matrix, up to scale
    and cap: any other model computes its logits itself, all at once.

    With `document_start`, the id of the token that documents begin with, the predictions of a document depend on none
    of the tokens before it.

    It is a module so that FSDP2 can take it as the root and gather the output matrix for the use in every chunk.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        logits_at_once: int = LOGITS_AT_ONCE,
        *,
        compile_head: bool = False,
        document_start: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.document_start = document_start
        self._logits_at_once = logits_at_once
        self._head_nats = torch.compile(_head_nats) if compile_head else _head_nats  # fused: no logits in float32
        self._head = linear_head(model)
        body: Any = model.base_model  # which would look for padding in every batch, and the host wait for the device
        body.warn_if_padding_and_no_attention_mask = lambda *_: None
        self.train(model.training)

    def packed(self, rows: Tensor) -> bool:
        """Return whether rows, which must be on the host, need a mask: whether one of them holds several documents."""
        return self.document_start is not None and bool((rows[:, 1:].numpy() == self.document_start).any())

    def forward(self, sequences: Tensor, packed: bool | None = None) -> Tensor:
        """Return the loss of each prediction in nats, (batch, length − 1), for token ids (batch, length).

        Args:
            packed: what `packed` says of these rows; None makes a mask where documents may begin.
        """
        with masks_without_waiting(packed=self.document_start is not None if packed is None else packed):
            nats = self._flat_nats(sequences, sequences[:, 1:].flatten())
        return nats.view(len(sequences), -1).clone()  # FSDP2 hooks the output, and warns of one that is a view

    def _flat_nats(self, sequences: Tensor, targets: Tensor) -> Tensor:
        """Return nats, (predictions,) with predictions = batch · (length − 1)."""
        if self._head is None:
            logits = self.model(**self._inputs(sequences)).logits[:, :-1]
            return _nats(logits.flatten(0, 1), targets)
        matrix = cast(nn.Linear, self.model.get_output_embeddings())
        hidden = _last_hidden(self.model, self._inputs(sequences))[:, :-1].flatten(0, 1)  # (predictions, width)
        hidden = hidden.to(matrix.weight.dtype)  # some models end in a norm that gives float32
        tokens = max(1, self._logits_at_once // matrix.out_features)
        if len(hidden) <= tokens:
            return self._head_nats(self._head, matrix, hidden, targets)
        parts = zip(hidden.split(tokens), targets.split(tokens), strict=True)
        # The head draws no random numbers, and saving the generator's state would make the host wait for the GPU.
        settings: Any = {"use_reentrant": False, "preserve_rng_state": False}
        nats = [checkpoint(self._head_nats, self._head, matrix, *part, **settings) for part in parts]
        return torch.cat(cast(list[Tensor], nats))

    def _inputs(self, sequences: Tensor) -> dict[str, Any]:
        if self.document_start is None:
            return _model_inputs(sequences)
        return _model_inputs(sequences) | {"position_ids": document_positions(sequences, self.document_start)}


def _head_nats(head: LinearHead, matrix: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    return _nats(head.logits(matrix(hidden).float()), targets)


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy (predictions,) of logits (predictions, vocabulary), computed in float32."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def _model_inputs(sequences: Tensor) -> dict[str, Any]:
    return {"input_ids": sequences, "use_cache": False}


def _last_hidden(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    body: Any = model.base_model
    return body(**inputs).last_hidden_state
