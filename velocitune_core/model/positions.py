"""Whether a model runs on rows that are longer than the positions its configuration names."""

from __future__ import annotations

import torch

from velocitune_core.model.fits_data import check_length, positions_of
from velocitune_core.model.miniature import miniature

_MOST = 2048  # positions of the model that is tried: the memory of its attention grows with their square


def positions_problem(path: str, sequence_length: int) -> str | None:
    """Return why a folder's model cannot be trained on rows beyond its positions, tried on a miniature of it.

    Some models look their positions up in a table that ends with the last one and is no parameter, so that its name is
    not among those of the weights. None for a model that goes on, for rows that `check_length` refuses or finds short
    enough, and for a model of which no miniature can be made.
    """
    if not check_length(path, sequence_length).warnings:
        return None
    limit = positions_of(path)
    assert limit is not None, "or there is nothing to warn of"
    tried = min(limit, _MOST)
    if _failure(path, tried, tried) is not None:  # this architecture cannot be this small
        return None
    if (failure := _failure(path, tried, tried + 1)) is None:
        return None
    return (
        f"data.sequence_length: {sequence_length}, and {path} has {limit} positions, none of which can be added: a row "
        f"of one token more fails ({failure}); set it to {limit} or less"
    )


@torch.no_grad()
def _failure(path: str, positions: int, length: int) -> str | None:
    """Return why a miniature with that many positions fails on a row of `length` tokens; None if it does not."""
    from velocitune_core.model.loss import NextTokenLoss

    if (model := miniature(path, positions)) is None:
        return "no miniature"
    try:
        NextTokenLoss(model)(torch.arange(length)[None] % 64)
    except Exception as error:  # of any kind: an index out of range, shapes that differ
        return str(error) or type(error).__name__
    return None
