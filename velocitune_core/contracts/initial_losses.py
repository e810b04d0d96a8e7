"""The base model's losses before any training."""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

from pydantic import Field

from velocitune_core.config import Precision
from velocitune_core.contracts.contract import Contract
from velocitune_core.contracts.evaluation_result import EvaluationResult
from velocitune_core.contracts.losses import Losses


class InitialLosses(Contract):
    """results/initial.json"""

    precision: Precision  # that they were measured in
    losses: Losses
    measured: Losses = Field(default={})  # of sets without training text
    tokens: dict[str, int]  # evaluated tokens by domain
    seconds: float

    @classmethod
    def of(cls, result: EvaluationResult, only_measured: Collection[str] = ()) -> Self:
        """Return the losses that an evaluation of the base model on its held-out sets measured.

        Args:
            only_measured: names of the sets without training text.
        """
        losses = {name: each.loss for name, each in result.sets.items()}
        return cls(
            precision=result.precision,
            losses={name: loss for name, loss in losses.items() if name not in only_measured},
            measured={name: loss for name, loss in losses.items() if name in only_measured},
            tokens={name: each.tokens for name, each in result.sets.items()},
            seconds=result.seconds,
        )
