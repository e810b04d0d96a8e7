"""Whether a model runs on rows that are longer than the positions of its configuration."""

from __future__ import annotations

import torch

from velocitune_core.model.fits_data import Fit, compare_length, config_with_defaults, position_limit, positions_of
from velocitune_core.model.miniature import miniature

_MOST = 2048  # positions of the model that is tried: the memory of its attention grows with their square


def positions_fit(path: str, sequence_length: int) -> Fit:
    """Return why a folder's model cannot be trained on rows beyond its positions, tried on a miniature of it.

    Some models look their positions up in a table that ends with the last one and is no parameter, so that its name is
    not among those of the weights. Where config.json names no number of positions, the model has as many as its class
    has by default. No problem is found for a model that goes on, for one of which no miniature can be made, and for
    what `check_length` finds without transformers.
    """
    named = positions_of(path)
    limit = position_limit(config_with_defaults(path)) if named is None else named
    found = compare_length(path, sequence_length, limit)
    if limit is not None and found.warnings and (failure := _failure_beyond(path, limit)) is not None:
        return Fit(
            problems=[
                f"data.sequence_length: {sequence_length}, and {path} has {limit} positions, none of which can be "
                f"added: a row of one token more fails ({failure}); set it to {limit} or less"
            ]
        )
    return Fit() if named is not None else found


def _failure_beyond(path: str, limit: int) -> str | None:
    """Return why a miniature fails on a row of one token more than it has positions; None if it does not."""
    tried = min(limit, _MOST)
    if _failure(path, tried, tried) is not None:  # this architecture cannot be this small
        return None
    return _failure(path, tried, tried + 1)


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
