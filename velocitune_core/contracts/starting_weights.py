"""The domain weights that the training starts from, how they were found, and what that cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from velocitune_core.contracts.contract import Contract, Part


class WeightsRun(Part):
    """A run that was made to find domain weights."""

    name: str
    folder: str  # in `runs/`
    tokens: int
    flops: Annotated[float, Field(ge=0)]  # of training and evaluation, computed from the model's shape
    seconds: float


class StartingWeights(Contract):
    """results/weights.json"""

    strategy: str  # that params.yaml names
    found_by: Literal["initial", "search"]  # initial: w_0 as configured
    domain_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(min_length=1)
    runs: list[WeightsRun] = Field(default_factory=list)  # in the order in which they were made

    @property
    def held(self) -> bool:
        """Whether the training holds the weights constant, as it does with all that were found by runs."""
        return self.found_by != "initial"

    @property
    def tokens(self) -> int:
        """Tokens that all runs trained on."""
        return sum(run.tokens for run in self.runs)

    @property
    def flops(self) -> float:
        """Floating-point operations of all runs."""
        return sum(run.flops for run in self.runs)

    @property
    def seconds(self) -> float:
        """Wall time of all runs together, as if one had followed the other."""
        return sum(run.seconds for run in self.runs)
