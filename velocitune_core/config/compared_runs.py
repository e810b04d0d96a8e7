"""Settings of a comparison: which strategies run, under which seeds, and what they are compared with."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from velocitune_core.config.base import KEYS, WORD, Fraction, Name, Options, Section
from velocitune_core.config.run import added_field
from velocitune_core.spelling import aside, did_you_mean, with_nearest

LawPoints = Literal["final", "intermediate"]  # of every proxy; or the measurements along the largest one
TargetLaw = Literal["chinchilla", "anchored", "auto"]
OtherTargets = Literal["fitted", "zero", "random"]  # zero and random: the paper's ablations


def distinct_seeds(seeds: list[int]) -> list[int]:
    """Return the seeds. Raises ValueError unless there is one, and none twice."""
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"{seeds} must be one or more distinct seeds")
    return seeds


def increasing(fractions: list[float]) -> list[float]:
    """Return the fractions. Raises ValueError unless there is one, and each is larger than the one before."""
    if not fractions or any(b <= a for a, b in pairwise(fractions)):
        raise ValueError(f"{fractions} must be one or more, and increase within (0, 1]")
    return fractions


class OwnTargets(Section):
    """Targets of one label: keys of `proxies` and `targets` that differ from those of the pipeline; None: as there."""

    fractions: list[Fraction] | None = None  # of the proxies; those that `proxies.fractions` has too are shared
    points: LawPoints | None = None
    law: TargetLaw | None = None

    @field_validator("fractions")
    @classmethod
    def _increasing(cls, fractions: list[float] | None) -> list[float] | None:
        return None if fractions is None else increasing(fractions)


def _fitted_or_others(targets: Any) -> Any:
    """Refuse what is neither one of the words nor keys."""
    words = get_args(OtherTargets)
    if targets not in words if isinstance(targets, str) else not isinstance(targets, dict | OwnTargets):
        raise ValueError(
            f"{targets!r} is none of {', '.join(words)}, and no keys such as {{law: anchored}}"
            f"{did_you_mean(targets, words)}"
        )
    return targets


Targets = Annotated[
    Annotated[OtherTargets, Tag(WORD)] | Annotated[OwnTargets, Tag(KEYS)],
    Discriminator(lambda targets: WORD if isinstance(targets, str) else KEYS),  # so that one type is reported alone
    BeforeValidator(_fitted_or_others),
]


class CompareRun(Section):
    """One label of the comparison: a strategy, and how its runs differ from the pipeline's."""

    strategy: str
    options: Options = Field(default={})
    search: Fraction | None = None
    targets: Targets = "fitted"
    weights_of: Name | None = None  # hold the mean domain weights of the run of that label under the same seed
    swarm_per_seed: bool = added_field(False)  # of planned: every seed plans from a swarm that it draws and trains

    @property
    def evenness(self) -> float | None:
        """The temperature of a constant mixture by size; None: its weights change, or are found."""
        if self.weights_of is not None or self.search is not None:
            return None
        if self.strategy == "temperature":
            temperature = self.options.get("temperature", 2.0)
            return float(temperature) if isinstance(temperature, int | float) else None
        return {"static": 1.0, "uniform": inf}.get(self.strategy)

    @property
    def own_targets(self) -> OwnTargets | None:
        """How the targets of this label are made; None if they are not its own."""
        return self.targets if isinstance(self.targets, OwnTargets) else None


class Compare(Section):
    """Strategies × seeds on the same base model, data, tokens and schedule."""

    seeds: list[int] = Field(default=[1, 2, 3])
    baseline: Name = "static"  # label that the others are paired with
    frontier: list[Name] | None = None  # labels of constant mixtures, from the least even to the most; None: all
    retained: list[Name] | None = None  # domains to be kept, not learnt; None: those without a gap to their target
    downstream: bool = False  # also score every final model as the section `downstream` says
    runs: dict[Name, CompareRun] = Field(min_length=1)

    @property
    def frontier_labels(self) -> list[str]:
        """The labels of the frontier, from the least even mixture to the most."""
        if self.frontier is not None:
            return self.frontier
        evenness = {label: each for label, run in self.runs.items() if (each := run.evenness) is not None}
        return sorted(evenness, key=lambda label: evenness[label])

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        return distinct_seeds(seeds)

    @model_validator(mode="after")
    def _labels_exist(self) -> Self:
        labels = ", ".join(self.runs)
        problems = []
        if self.baseline not in self.runs:
            first = next((label for label, run in self.runs.items() if run.evenness == 1), next(iter(self.runs)))
            problems.append(
                f"baseline names {self.baseline!r}{aside(self.baseline, self.runs)}, runs are {labels}; add that "
                f"label, or give -S compare.baseline={first}"
            )
        if missing := [label for label in self.frontier or [] if label not in self.runs]:
            problems.append(
                f"frontier names {with_nearest(missing, self.runs)}, runs are {labels}; give -S "
                "compare.frontier=null for all constant mixtures among them"
            )
        problems += [
            f"runs.{label}.weights_of names {run.weights_of!r}{aside(run.weights_of, self.runs)}, runs are {labels}; "
            f"add that label, or remove {label}"
            for label, run in self.runs.items()
            if run.weights_of and run.weights_of not in self.runs
        ]
        problems += [
            f"runs.{label}.weights_of names {run.weights_of!r}, which takes its own weights from another run"
            for label, run in self.runs.items()
            if run.weights_of in self.runs and self.runs[run.weights_of].weights_of
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self
