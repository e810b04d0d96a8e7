"""Settings of a comparison: which strategies run, under which seeds, and what they are compared with."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from velocitune_core.config.base import Fraction, Name, Section
from velocitune_core.config.run import added_field

LawPoints = Literal["final", "intermediate"]  # of every proxy; or the measurements along the largest one
TargetLaw = Literal["chinchilla", "anchored", "auto"]


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


class CompareRun(Section):
    """One label of the comparison: a strategy, and how its runs differ from the pipeline's."""

    strategy: str
    options: dict[str, Any] = Field(default={})
    search: Fraction | None = None
    targets: Literal["fitted", "zero", "random"] | OwnTargets = "fitted"  # zero and random: the paper's ablations
    weights_of: Name | None = None  # hold the mean domain weights of the run of that label under the same seed
    swarm_per_seed: bool = added_field(False)  # of planned: every seed plans from a swarm that it draws and trains

    @property
    def own_targets(self) -> OwnTargets | None:
        """How the targets of this label are made; None if they are not its own."""
        return self.targets if isinstance(self.targets, OwnTargets) else None


class Compare(Section):
    """Strategies × seeds on the same base model, data, tokens and schedule."""

    seeds: list[int] = Field(default=[1, 2, 3])
    baseline: Name = "static"  # label that the others are paired with
    frontier: list[Name] = Field(default=[])  # labels of constant mixtures, from the least even to the most
    retained: list[Name] | None = None  # domains to be kept, not learnt; None: those without a gap to their target
    downstream: bool = False  # also score every final model as the section `downstream` asks
    runs: dict[Name, CompareRun] = Field(min_length=1)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        return distinct_seeds(seeds)

    @model_validator(mode="after")
    def _labels_exist(self) -> Self:
        named = {"baseline": [self.baseline], "frontier": self.frontier}
        named |= {f"runs.{label}.weights_of": [run.weights_of] for label, run in self.runs.items() if run.weights_of}
        problems = [
            f"{field} names {label!r}, runs are {sorted(self.runs)}"
            for field, labels in named.items()
            for label in labels
            if label not in self.runs
        ]
        problems += [
            f"runs.{label}.weights_of names {run.weights_of!r}, which takes its own weights from another run"
            for label, run in self.runs.items()
            if run.weights_of in self.runs and self.runs[run.weights_of].weights_of
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self
