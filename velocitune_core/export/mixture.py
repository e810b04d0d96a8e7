"""A mixture that a run found or used, ready to be written for another trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Unit = Literal["sequences", "documents"]  # what another trainer draws: rows of equal length, or whole documents


class ExportError(ValueError):
    """A mixture that cannot be read or written as asked: fields with values and fixes, one problem a line."""


@dataclass(frozen=True)
class DomainSize:
    """The training text of a domain."""

    tokens: int
    documents: int | None = None  # None: not known


@dataclass(frozen=True)
class Stage:
    """The weights that are used from step `step` on, counted from 0."""

    step: int
    shares: Mapping[str, float]  # of tokens, by domain


@dataclass(frozen=True)
class Mixture:
    """Shares of the tokens by domain, where they come from, and what they were used on."""

    shares: Mapping[str, float]  # mean over the run; they sum to 1
    source: str  # a sentence: which file, which run
    stages: Sequence[Stage] = ()  # of a run whose weights changed; none: constant
    steps: int | None = None  # of the run
    tokens: int | None = None  # of the run
    trained_tokens: Mapping[str, float] = field(default_factory=dict)  # by domain, as the run drew them; may be empty
    sizes: Mapping[str, DomainSize] = field(default_factory=dict)  # may be empty
    sequence_length: int | None = None
    notes: Sequence[str] = ()  # sentences that a reader must know

    def held(self) -> Mixture:
        """Return the mixture held at its mean."""
        if not self.stages:
            return self
        changes = len(self.stages) - 1
        often = "once" if changes == 1 else f"{changes} times"
        note = f"The weights changed {often} over the run; this is their mean over its steps."
        return replace(self, stages=(), notes=[*self.notes, note])

    def merged(self, most: int) -> Mixture:
        """Return the mixture with at most `most` stages: neighbours are joined, with their mean over steps.

        The new stages begin at changes of the run's own weights, as near as can be to equal parts of the run.
        """
        if len(self.stages) <= most:
            return self
        assert self.steps is not None, "stages are of a run"
        starts = [stage.step for stage in self.stages]
        wanted = [self.steps * part / most for part in range(most)]
        chosen = sorted({min(starts, key=lambda start: (abs(start - goal), start)) for goal in wanted} | {starts[0]})
        ends = [*chosen[1:], self.steps]
        stages = [Stage(start, self._mean(start, end)) for start, end in zip(chosen, ends, strict=True)]
        note = f"{len(self.stages)} stages of the run are joined to {len(stages)}, with their means over steps."
        return replace(self, stages=stages, notes=[*self.notes, note])

    def spans(self) -> list[int]:
        """Return the steps that each stage lasts."""
        assert self.steps is not None, "stages are of a run"
        starts = [stage.step for stage in self.stages]
        return [end - start for start, end in zip(starts, [*starts[1:], self.steps], strict=True)]

    def _mean(self, start: int, end: int) -> dict[str, float]:
        inside = [
            (span, stage.shares)
            for stage, span in zip(self.stages, self.spans(), strict=True)
            if start <= stage.step < end
        ]
        total = sum(span for span, _ in inside)
        return {name: sum(span * shares[name] for span, shares in inside) / total for name in self.shares}
