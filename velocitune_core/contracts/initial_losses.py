"""The base model's losses before any training."""

from __future__ import annotations

from velocitune_core.config import Precision
from velocitune_core.contracts.contract import Contract
from velocitune_core.contracts.losses import Losses


class InitialLosses(Contract):
    """results/initial.json"""

    precision: Precision  # that they were measured in
    losses: Losses
    tokens: dict[str, int]  # evaluated tokens by domain
    seconds: float
