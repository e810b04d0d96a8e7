"""What an optimisation answers: weights, predictions for them and for others, what binds, and how sure it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from velocitune_core.mixture_law.support import COVERED

LimitKind = Literal["set", "average", "forgetting", "least_share", "largest_share", "epochs", "runs"]


@dataclass(frozen=True)
class Interval:
    """A value under the law, and quantiles over its resamples (None without resamples)."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MixturePrediction:
    """Predictions for one mixture. Differences are to the baseline, in nats per token; negative is better."""

    weights: dict[str, float]
    losses: dict[str, Interval]  # by set
    average: Interval  # the one that is minimised
    differences: dict[str, Interval]  # of every average, by its name
    set_differences: dict[str, Interval]  # by set
    distance: float  # to what the runs cover: at most 1 inside
    keeps_guards: bool  # under the law, bounds of weights included

    @property
    def inside(self) -> bool:
        """Whether the runs cover the mixture, so that its prediction can be believed."""
        return self.distance <= COVERED


@dataclass(frozen=True)
class Limit:
    """A guard or bound at the recommended weights.

    The price is how many nats the average falls per unit that the limit is loosened, for a small step (the Lagrange
    multiplier): per nat of a guard, per unit of weight of a share, per epoch. 0 if it does not bind. Larger steps gain
    less per unit: `gain` is what `step` more gains, by the optimum under the limit that is looser by that. A limit that
    is one number for several sets or domains is loosened for all of them.
    """

    kind: LimitKind
    about: str  # a set, an average or a domain; of `runs`: a domain at the edge of its range, "" for the distance
    limit: float  # nats, share, epochs, or distance
    reached: float  # the same quantity at the recommended weights
    binds: bool
    price: float
    gain: float = 0.0  # nats of the average, by loosening the limit by `step`
    step: float = 0.0  # in units of the limit; 0 if nothing was loosened
    for_all: bool = False  # whether the limit is one number for all sets or domains, loosened for all of them
    kept_in: float | None = None  # share of the resamples in which the recommended weights keep a guard


@dataclass(frozen=True)
class Gain:
    """The most nats of the average that any mixture could gain over the best reference mixture."""

    reference: str  # a name in `MixturePlan.mixtures`
    gain: Interval  # high: the quantile `level` over resamples, each with its own optimum


@dataclass(frozen=True)
class MixturePlan:
    """Recommended weights for an objective, and the evidence for them. Losses and differences are in nats per token."""

    law: str
    average: str  # name of the average that is minimised
    baseline: str  # the mixture that differences refer to: "static", or "uniform" without initial weights
    weights: dict[str, float]  # recommended
    rule: str  # by which they were chosen
    mixtures: dict[str, MixturePrediction]  # "recommended", "optimum", "without guards", and the references
    limits: list[Limit]
    most: Gain | None  # among mixtures that keep the guards; None: no reference that the runs cover keeps them
    most_without_guards: Gain | None
    optima: list[dict[str, float]]  # of the resamples
    spread: dict[str, Interval]  # of each weight over the optima; value: the recommended one
    regret: Interval | None  # of the recommended weights to the optima of resamples: mean, and quantiles
    indistinguishable: list[str]  # references that keep the guards, and may be as good as what is recommended
    infeasible_resamples: int  # in which no mixture keeps the guards; they are left out of `optima`
    proven: bool  # whether the optimality conditions hold at the optimum of a convex law
    level: float  # of intervals
    given: str = ""  # name of the mixture at hand that is recommended, because no optimum is better
    notes: list[str] = field(default_factory=list)  # what the numbers leave out, in sentences

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain dictionaries, lists, strings and numbers, for JSON."""
        return asdict(self)
