"""The result of one evaluation by the training program."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, FiniteFloat

from velocitune_core.config import Precision
from velocitune_core.contracts.contract import Contract, Part


class MeasuredSet(Part):
    """Sums over one held-out set or one task."""

    sequences: Annotated[int, Field(gt=0)]  # packed sequences, or questions
    tokens: Annotated[int, Field(gt=0)]  # predicted and counted
    nats: FiniteFloat  # Σ −log p of these tokens
    bytes: int | None = None  # of the text of these tokens; None for packed sequences
    shortened: int = 0  # questions whose answer was too long for the context and was cut

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Nats / (ln 2 · bytes)."""
        assert self.bytes is not None, "packed sequences have no bytes"
        return self.nats / (math.log(2) * self.bytes)


class EvaluationResult(Contract):
    """result.json of an evaluation."""

    name: str
    recipe: str = ""  # fingerprint of the job
    precision: Precision  # of matrix products
    parameters: int
    context_tokens: int | None = None  # most tokens of a question; None for packed sequences
    sets: dict[str, MeasuredSet]  # by name of the domain or task
    seconds: float  # wall time of all attempts
