"""The base model's losses before any training."""

from __future__ import annotations

from typing import Self

from velocitune_core.config import Precision
from velocitune_core.contracts.contract import Contract
from velocitune_core.contracts.evaluation_result import EvaluationResult
from velocitune_core.contracts.losses import Losses


class InitialLosses(Contract):
    """results/initial.json"""

    precision: Precision  # that they were measured in
    losses: Losses
    tokens: dict[str, int]  # evaluated tokens by domain
    seconds: float

    @classmethod
    def of(cls, result: EvaluationResult) -> Self:
        """Return the losses that an evaluation of the base model on its held-out sets measured."""
        return cls(
            precision=result.precision,
            losses={name: each.loss for name, each in result.sets.items()},
            tokens={name: each.tokens for name, each in result.sets.items()},
            seconds=result.seconds,
        )
