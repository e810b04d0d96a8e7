"""Held-out losses in nats per token: Σ nats / Σ tokens over a domain's held-out set."""

from __future__ import annotations

from pydantic import FiniteFloat

from velocitune_core.contracts.contract import Part

Losses = dict[str, FiniteFloat]  # domain → nats per token


class LossPoint(Part):
    """Held-out losses after `tokens` training tokens of the whole mixture."""

    step: int
    tokens: int
    losses: Losses
