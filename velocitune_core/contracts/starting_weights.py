"""The domain weights that the training starts from, how they were found, and what that cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from velocitune_core.contracts.contract import Contract, Part
from velocitune_core.contracts.losses import Losses
from velocitune_core.contracts.train_result import WeightPoint


class WeightsRun(Part):
    """A run that was made to find domain weights."""

    name: str
    folder: str  # in `runs/`
    tokens: int
    flops: Annotated[float, Field(ge=0)]  # of training and evaluation, computed from the model's shape
    seconds: float
    shared: bool = False  # the stage `proxies` made it, or an earlier plan did


class SwarmRun(WeightsRun):
    """A run of a swarm: the domain weights that it trained under, and the losses that it ended with.

    Its use: `law`, the law is fitted to it; `earlier`, that too, where it measured a set: it was made before a domain
    was added, whose weight is 0 in it, and costs nothing now; `effect`, of the model itself beside a sibling's swarm.
    """

    fraction: float  # of data and budget
    seed: int
    domain_weights: dict[str, float]  # shares of the tokens that it was trained on
    losses: Losses  # by held-out set
    use: Literal["law", "earlier", "effect"] = "law"


class SwarmRound(Part):
    """What is known after a round of a swarm, and what was expected of the next one; nats of the average."""

    runs: int  # so far, of all sizes and seeds
    share: float  # of the main run's operations, that they took
    predicted: FiniteFloat  # difference of the recommended weights to static training
    regret: FiniteFloat | None  # of the recommended weights, exceeded in 2.5 % of the resamples; None: no optima
    spread: FiniteFloat  # mean total variation of the resamples' optima to the recommended weights
    tolerance: FiniteFloat  # of the regret
    settled: bool  # the regret is at most the tolerance
    further: int  # mixtures of the next round; 0: the swarm ended
    expected: FiniteFloat  # by how much they were expected to lower the mean deviation of the average at the optima


class Worth(Part):
    """What a plan gains, and what static training would gain from as many operations; nats of the average."""

    gain: FiniteFloat  # predicted, over static training
    share: float  # of the main run's operations, that the runs of the swarm took, without earlier ones
    static_gain: FiniteFloat | None  # of static training continued for them, by the targets' laws; None: no laws
    pays_from: float | None  # main run in multiples of the swarm, from which on the plan gains more; None: unknown
    without_law: list[str] = Field(default_factory=list)  # sets of the average without a law over tokens, which is why


class Planned(Part):
    """How weights were planned."""

    fraction: float  # of data and budget: size of the runs that the law was fitted to
    model: str | None  # folder of the sibling that was trained; None: the model itself
    runs: list[SwarmRun]
    rounds: list[SwarmRound] = Field(default_factory=list)  # in which the runs were made; none: all at once
    missing_runs: list[str] = Field(default_factory=list)  # names of those that failed after all retries
    law: dict[str, Any]  # name, and evidence by set: velocitune_core.mixture_law.law.SetEvidence
    plan: dict[str, Any]  # velocitune_core.mixture_law.mixture_plan.MixturePlan
    worth: Worth
    explanation: list[str]  # sentences, the most important first


class Steering(Part):
    """What the training under planned weights is steered along."""

    target_loss: Losses  # by domain: predicted for these weights at the full budget
    course: dict[str, list[tuple[float, float]]]  # by domain: share of the run, share of the gap that is then open


class StartingWeights(Contract):
    """results/weights.json"""

    strategy: str  # that params.yaml names
    found_by: Literal["initial", "search", "planned"]  # initial: w_0 as configured
    domain_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(min_length=1)
    search: list[WeightsRun] = Field(default_factory=list)  # its runs, in the order in which they were made
    searched: list[WeightPoint] = Field(default_factory=list)  # over its last run, whose mean the training holds
    planned: Planned | None = None
    steering: Steering | None = None  # of a plan that the training does not hold, but starts from
    inputs: dict[str, Any] = Field(default_factory=dict)  # what decides the weights; none for w_0, which it is itself

    @property
    def held(self) -> bool:
        """Whether the training holds the weights constant, as it does with what runs found unless it is steered."""
        return self.found_by != "initial" and self.steering is None

    @property
    def runs(self) -> list[WeightsRun]:
        """All runs that the weights come from."""
        return [*self.search, *(self.planned.runs if self.planned else [])]

    @property
    def paid_runs(self) -> list[WeightsRun]:
        """The runs that are part of the price: all but those that an earlier plan made."""
        return [run for run in self.runs if getattr(run, "use", "law") != "earlier"]

    @property
    def own_runs(self) -> list[WeightsRun]:
        """The runs that were made for nothing else."""
        return [run for run in self.runs if not run.shared]
