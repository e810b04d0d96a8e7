"""How long the runs of a pipeline will still take, by the speed of runs that have finished here, or of a probe."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.runs.budget import pipeline_steps
from tasks.runs.devices import parallel_runs
from tasks.workspace import paths
from tasks.workspace.planned_settings import first_size, mixture_of
from tasks.workspace.run_lengths import part_of
from velocitune_core.config import ConfigError, Params
from velocitune_core.contracts import ContractError, Manifest, TrainResult
from velocitune_core.strategies import PLANNED, search_share, strategy_class
from velocitune_core.style.text import duration

if TYPE_CHECKING:
    from tasks.planning.build import Plan
    from velocitune_core.plan.cost import Cost

WITH_RUNS = ("proxies", "weights", "train")  # stages whose time is known from the token budget
TRAINING = {"base", *WITH_RUNS, "compare"}
MOST_TO_START = 5.0  # seconds; the first run of a command takes longer, since it waits for libraries to be loaded
UNTRAINED = {paths.BASE_MODEL: paths.RUNS / "base-inputs/untrained"}
UNTRAINED[paths.SIBLING_MODEL] = paths.RUNS / "base-inputs/untrained-sibling"


@dataclass(frozen=True)
class Speed:
    """What a run of a model took on this machine."""

    start_seconds: float  # until its first step, and after its last one
    seconds_per_token: float  # with evaluations and checkpoints


class TimeLeft:
    """How much of a pipeline is left: one estimate, for what is said before the work and for the stages' headings.

    Args:
        plan: made before the work. Its finished runs are left out; its times, if it has some, stand in for those of
            stages for whose model no run has finished here.
    """

    def __init__(self, params: Params, plan: Plan | None = None) -> None:
        self._params = params
        self._planned: dict[str, list[tuple[float, Cost]]] = {}  # unfinished share and price of the rows of each stage
        for row, cost in [] if plan is None else zip(plan.stages, plan.prices, strict=True):
            stage = row.name.partition(",")[0]  # "weights, at most" are further rounds of "weights"
            unfinished = 1 - row.finished / max(1, len(row.runs))
            self._planned.setdefault(stage, []).append((unfinished, cost))

    def tokens(self, stages: Collection[str]) -> float:
        """Return the tokens of the runs of `stages` that are not finished."""
        rows = [row for stage in self._planned if stage in stages for row in self._planned[stage]]
        return sum(unfinished * cost.tokens for unfinished, cost in rows)

    def seconds(self, stages: Collection[str], manifest: Manifest) -> float | None:
        """Return the wall time of the runs of `stages` that are not finished; None if one has no known speed."""
        found = [self._seconds_of(stage, manifest) for stage in stages if stage in TRAINING]
        known = [each for each in found if each is not None]
        return sum(known) if len(known) == len(found) else None

    def from_stage(self, stage: str, stages: Sequence[str]) -> str:
        """Return the time that the runs from `stage` on will take, ', about 70 s left'; nothing if it is not known.

        Before a comparison it is not: how many of its runs will be needed is known when it begins.

        Args:
            stages: of the pipeline, in order. All of them are counted: whether a later one is up to date is not known.
        """
        later = stages[stages.index(stage) :]
        if stage not in WITH_RUNS or "compare" in later:
            return ""
        try:
            seconds = self.seconds(later, Manifest.read(paths.MANIFEST))
        except (ConfigError, ContractError, OSError):
            return ""  # the stage itself says what is wrong
        return "" if seconds is None else f", about {duration(seconds, rough=True)} left"

    def _seconds_of(self, stage: str, manifest: Manifest) -> float | None:
        """Return the wall time that a stage has left; further rounds are priced by the pace of its first row."""
        rows = self._planned.get(stage, [])
        seconds = seconds_of(stage, self._params, manifest) if stage in WITH_RUNS else None
        if seconds is None and rows:
            seconds = rows[0][1].seconds
        if seconds is None or not rows:
            return seconds
        return seconds * self.tokens([stage]) / max(1, rows[0][1].tokens)


def seconds_of(stage: str, params: Params, manifest: Manifest) -> float | None:
    """Return the wall time of all runs of a stage; None if no run of that model has finished here."""
    model = Path(params.model.path)
    steps, shares, at_once = pipeline_steps(params, manifest), [1.0], 1
    if stage == "proxies":
        shares = [fraction for fraction in params.proxies.fractions for _ in params.proxies.seeds]
        at_once = parallel_runs(params.resources)
    elif stage == "weights" and params.strategy.name == PLANNED:
        swarm = mixture_of(params, params.strategy.options).swarm
        runs = first_size(swarm, len(manifest.domains)) * len(swarm.seeds)
        shares = [fraction for fraction in swarm.fractions for _ in range(runs)]
        model = model if swarm.model is None else Path(swarm.model)
        at_once = parallel_runs(params.resources)
    elif stage == "weights":
        share = params.strategy.search or search_share(params.strategy.name)
        reference = [1.0] if strategy_class(params.strategy.name).needs_reference else []
        shares = [] if share is None else [*reference, share]
    if not shares:
        return 0.0
    if (speed := speed_of(model)) is None:
        return None
    tokens = params.training.batch_sequences * manifest.sequence_length
    took = sum(speed.start_seconds + part_of(steps, each) * tokens * speed.seconds_per_token for each in shares)
    return took / min(at_once, len(shares))


def speed_of(model: Path) -> Speed | None:
    """Return the speed of the newest finished run of a model; None if there is none.

    The embedded base has one from the start: the run that trained it.
    """
    made = {str(model), str(UNTRAINED.get(model, model))}
    newest = sorted(paths.RUNS.glob("*/result.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in newest:
        job = file.with_name("job.json")
        try:
            if json.loads(job.read_text(encoding="utf-8")).get("model") not in made:
                continue
            result = TrainResult.read(file)
        except (OSError, ValueError):
            continue  # an evaluation, or of another version
        if result.tokens and not result.resumed:
            whole = file.stat().st_mtime - job.stat().st_mtime
            start = min(max(0.0, whole - result.seconds.total), MOST_TO_START)
            return Speed(start, result.seconds.total / result.tokens)
    return None
