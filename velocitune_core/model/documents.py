"""Attention that stays inside a document, in rows that hold several: positions that start again at each document."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from velocitune_core.model.folder import ModelError
from velocitune_core.model.miniature import miniature

if TYPE_CHECKING:
    from velocitune_core.model.loss import NextTokenLoss

logger = logging.getLogger(__name__)
_PACKED: ContextVar[bool | None] = ContextVar("_PACKED", default=None)  # None: look at the positions
_LOOK = "find_packed_sequence_indices"  # of transformers.masking_utils, which promises no names
_ROUNDING = 1e-5  # nats
_SHARE = 0.25  # of what an earlier document changes without the mask: a mixture of experts rounds as all its tokens do


def document_positions(sequences: Tensor, document_start: int) -> Tensor:
    """Return the position of each token in its document, (batch, length) like the token ids.

    A document begins at every `document_start` token, and at the start of a row. transformers keeps attention inside
    the documents of a row whose `position_ids` start again, if it is given no attention mask
    (`transformers.masking_utils.find_packed_sequence_indices`).
    """
    places = torch.arange(sequences.shape[1], device=sequences.device).expand_as(sequences)
    firsts = torch.where(sequences == document_start, places, 0).cummax(dim=1).values
    return places - firsts


@contextmanager
def masks_without_waiting(*, packed: bool) -> Iterator[None]:
    """Set whether rows hold several documents, so that transformers does not read it from their positions.

    In every forward pass `find_packed_sequence_indices` checks whether positions start again in any row, with or
    without a document mask, and the host waits there for the device. Inside this context no value is read: rows get
    a mask if `packed`, and none otherwise. Compiled code makes no such check. It holds for forward passes of this
    thread.
    """
    if torch.compiler.is_compiling():
        yield
        return
    _replace_look_at_positions()
    before = _PACKED.set(packed)
    try:
        yield
    finally:
        _PACKED.reset(before)


@lru_cache
def _replace_look_at_positions() -> None:
    """Put a function in the place of transformers' own, once, that looks at positions only if `_PACKED` is not set."""
    from transformers import masking_utils

    look = getattr(masking_utils, _LOOK, None)
    if look is None:
        logger.warning("this version of transformers has no masking_utils.%s: a step may wait for the device", _LOOK)
        return

    @wraps(look)
    def look_unless_set(position_ids: Tensor) -> Tensor | None:
        packed = None if torch.compiler.is_compiling() else _PACKED.get()
        if packed is None:
            return look(position_ids)
        return _document_numbers(position_ids) if packed else None

    setattr(masking_utils, _LOOK, look_unless_set)


def _document_numbers(position_ids: Tensor) -> Tensor:
    """Return the number of each token's document in its row, (batch, length): positions go up by 1 inside of one."""
    steps = torch.diff(position_ids, prepend=position_ids[:, :1] - 1, dim=-1)
    return (steps != 1).cumsum(-1)


def document_mask_problem(path: str) -> str | None:
    """Return why the attention of a folder's model cannot be kept inside a document, tried on a miniature of it.

    None for a model that can be masked, and for one of which no miniature can be made: that is found when it is loaded.
    """
    from velocitune_core.model.loss import NextTokenLoss

    if (model := miniature(path)) is None:
        return None
    try:
        check_document_mask(NextTokenLoss(model, document_start=0), 0, torch.device("cpu"))
    except ModelError as error:
        return str(error)
    except Exception:  # an architecture that cannot be this small
        return None
    return None


@torch.no_grad()
def check_document_mask(loss: NextTokenLoss, document_start: int, device: torch.device) -> None:
    """Try on eight tokens that the losses of a document do not depend on the document before it.

    Every rank of a sharded model must call. Raises ModelError for a model whose attention does not follow
    `position_ids`: one with ALiBi or a recurrent state, and OPT.
    """
    vocabulary = loss.model.config.get_text_config().vocab_size
    tokens = [token for token in range(min(vocabulary, 10)) if token != document_start]
    second = [document_start, *tokens[:3]]
    rows = [torch.tensor([[*first, *second]], device=device) for first in (tokens[:4], tokens[3:7])]

    def changed(*, masked: bool) -> float:
        """Return how much the first document changes the losses of the second one, in nats."""
        loss.document_start = document_start if masked else None
        one, other = (loss(row)[:, len(second) :] for row in rows)
        return float((one - other).abs().max())

    was_training = loss.training
    loss.eval()
    with torch.compiler.set_stance("force_eager"):  # compiled for this shape, the layers would be compiled twice
        leaked, unmasked = changed(masked=True), changed(masked=False)
    loss.train(was_training)
    loss.document_start = document_start
    if leaked > max(_ROUNDING, _SHARE * unmasked):
        raise ModelError(
            f"data.document_mask: true, and transformers cannot keep the attention of a "
            f"{loss.model.config.model_type} model inside a document; set it to false"
        )
