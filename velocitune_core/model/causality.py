"""Whether a model predicts each token from earlier ones alone, as training on the next token needs."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from velocitune_core.model.folder import ModelError
from velocitune_core.model.miniature import miniature

_LENGTH = 8  # tokens of the rows that are tried
_ROUNDING = {torch.float32: 1e-4}  # nats; a mixture of experts rounds as all tokens of a batch do
_COARSE_ROUNDING = 0.1  # nats, of shorter numbers


def causality_problem(path: str) -> str | None:
    """Return why a folder's model cannot be trained to predict the next token, tried on a miniature of it.

    None for a causal model, and for one of which no miniature can be made: that is found when it is loaded.
    """
    if (model := miniature(path)) is None:
        return None
    try:
        from velocitune_core.model.loss import NextTokenLoss

        leaked = _leaked(NextTokenLoss(model), 64, torch.device("cpu"))
    except Exception:  # an architecture that cannot be this small
        return None
    return _problem(path, model.config.model_type) if leaked > _ROUNDING[torch.float32] else None


@torch.no_grad()
def check_causal(loss: nn.Module, path: str, dtype: torch.dtype, device: torch.device) -> None:
    """Try on eight tokens that the losses of earlier predictions do not depend on a later token.

    Every rank of a sharded model must call. Raises ModelError for a model that attends in both directions.

    Args:
        loss: a NextTokenLoss.
        dtype: that it computes in.
    """
    config = loss.model.config  # pyrefly: ignore
    was_training = loss.training
    loss.eval()
    with torch.compiler.set_stance("force_eager"):  # compiled for this shape, the layers would be compiled twice
        leaked = _leaked(loss, config.get_text_config().vocab_size, device)
    loss.train(was_training)
    if leaked > _ROUNDING.get(dtype, _COARSE_ROUNDING):
        raise ModelError(_problem(path, config.model_type))


@torch.no_grad()
def _leaked(loss: nn.Module, vocabulary: int, device: torch.device) -> float:
    """Return how much the last token of a row changes the losses of the predictions before it, in nats."""
    row = torch.arange(_LENGTH, device=device) % vocabulary
    other = row.clone()
    other[-1] = (row[-1] + vocabulary // 2) % vocabulary
    one, two = loss(torch.stack([row, other]))[:, :-1]
    return float((one - two).abs().max())


def _problem(path: str, model_type: str) -> str:
    try:
        named = json.loads((Path(path) / "config.json").read_text(encoding="utf-8")).get("is_decoder")
    except (OSError, ValueError, AttributeError):
        named = None
    fix = "set is_decoder to true in its config.json only if it was trained so, or " if named is False else ""
    return (
        f"model.path: {path} is a {model_type} model that uses later tokens when it predicts the next one, so it would "
        f"learn to copy them; {fix}give a causal model"
    )
