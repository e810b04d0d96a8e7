"""When a run may go on from a checkpoint of another recipe: a larger token budget under a schedule with a stable part.

The states of two runs after c steps are equal, bit for bit, if their recipes differ in nothing but the number of steps
and the learning-rate schedule, both schedules give the same rate at each of the c steps, and the strategy's weights do
not depend on the number of steps. Under warm-up-stable-decay that holds until the decay of the shorter run begins, if
both warm up over the same number of steps: set `schedule.warmup_steps`, as `warmup_fraction` is of all steps.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from velocitune_core.checkpoint.names import saved_checkpoints, step_of
from velocitune_core.config import Schedule
from velocitune_core.strategies import Strategy, make_strategy
from velocitune_core.train.job import Job, TrainJob, differences
from velocitune_core.train.schedule import shared_steps, warmup_steps

logger = logging.getLogger(__name__)


def common_steps(recipe: Mapping[str, Any], job: TrainJob) -> tuple[int, str]:
    """Return how many first steps a run of another recipe has in common with a job, and, if none, why.

    Args:
        recipe: of the other run, as `TrainJob.recipe` gives it.
    """
    ours = job.recipe()
    if changed := differences(_without_length(recipe), _without_length(ours)):
        return 0, f"{changed[0].strip()} differs"
    try:
        schedule = Schedule.model_validate(recipe["training"]["schedule"])
        total_steps = int(recipe["total_steps"])
    except (ValidationError, KeyError, TypeError, ValueError):
        return 0, "its recipe is of another version"
    weights = {name: job.initial_domain_weights[name] for name in job.domains}
    strategy = make_strategy(job.strategy.name, initial_weights=weights, **job.strategy.options)
    if _depends_on_total_steps(strategy) and total_steps != job.total_steps:
        return 0, f"with these options, the weights of strategy {job.strategy.name} depend on the number of steps"
    ours_schedule = job.training.schedule
    shared = shared_steps(schedule, total_steps, ours_schedule, job.total_steps)
    if shared == 0:
        warmups = warmup_steps(schedule, total_steps), warmup_steps(ours_schedule, job.total_steps)
        reason = f"the learning rate differs from the first step (warm-up over {warmups[0]} and {warmups[1]} steps); "
        return 0, reason + "schedule.kind wsd with schedule.warmup_steps gives runs of all lengths the same start"
    return shared, ""


def steps_of_any_budget(job: TrainJob) -> int:
    """Return how many first steps a job has in common with jobs that differ in a larger token budget alone."""
    return common_steps(job.recipe(), job.model_copy(update={"total_steps": 2 * job.total_steps}))[0]


def discard_checkpoints(folder: Path, job: Job) -> None:
    """Delete the checkpoints of a finished run, but those that a run with a larger token budget may go on from."""
    checkpoints = saved_checkpoints(folder / "checkpoints")
    if not isinstance(job, TrainJob) or not checkpoints:
        return
    shared, staying = steps_of_any_budget(job), []
    for checkpoint in checkpoints:
        if step_of(checkpoint) > shared:
            try:
                shutil.rmtree(checkpoint)
            except OSError as error:  # no reason for a finished run to fail
                staying.append(f"{checkpoint}: {error}")
    if staying:
        logger.warning("%s: checkpoints that nothing reads again stay: %s", job.name, "; ".join(staying))


def _depends_on_total_steps(strategy: Strategy) -> bool:
    """A class that inherits the answer of another one may compute something else, so only its own answer counts."""
    kind = type(strategy)
    answers = kind.__module__.startswith("velocitune_core.strategies.") or "depends_on_total_steps" in vars(kind)
    return strategy.depends_on_total_steps or not answers


def _without_length(recipe: Mapping[str, Any]) -> dict[str, Any]:
    training = {key: value for key, value in recipe.get("training", {}).items() if key != "schedule"}
    return {**recipe, "training": training, "total_steps": None}
