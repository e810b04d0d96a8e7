"""The losses of one proxy run."""

from __future__ import annotations

from velocitune_core.config import Precision
from velocitune_core.contracts.contract import Contract
from velocitune_core.contracts.losses import LossPoint


class ProxyResult(Contract):
    """results/proxies/<name>.json"""

    name: str
    fraction: float
    seed: int
    precision: Precision  # of matrix products
    steps: int
    tokens: int  # of the whole mixture
    points: list[LossPoint]  # in order of tokens; the last is at the end of the run
    seconds: float

    @property
    def final(self) -> LossPoint:
        """The losses at the end of the run."""
        return self.points[-1]
