"""The losses of one proxy run."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from velocitune_core.config import Precision
from velocitune_core.contracts.contract import Contract
from velocitune_core.contracts.losses import Losses, LossPoint
from velocitune_core.contracts.train_result import TrainResult


class ProxyResult(Contract):
    """results/proxies/<name>.json"""

    name: str
    fraction: float
    seed: int
    precision: Precision  # of matrix products
    steps: int
    tokens: int  # of the whole mixture
    points: list[LossPoint]  # in order of tokens; the last is at the end of the run
    measured: Losses = Field(default={})  # at the end, of sets without training text
    seconds: float

    @property
    def final(self) -> LossPoint:
        """The losses at the end of the run."""
        return self.points[-1]

    @classmethod
    def of(cls, result: TrainResult, fraction: float, seed: int) -> Self:
        """Return what the targets need of the result of a run on a fraction of data and budget."""
        return cls(
            name=result.name,
            fraction=fraction,
            seed=seed,
            precision=result.precision,
            steps=result.steps,
            tokens=result.tokens,
            points=result.points,
            measured=result.measured,
            seconds=result.seconds.total,
        )
