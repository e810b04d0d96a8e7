"""Plan, then steer: the course of a plan, and the run that starts under its weights and is kept on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.runs.jobs import starting_from, with_weights
from tasks.workspace import paths
from tasks.workspace.planned_settings import steering_options
from velocitune_core.config import StrategyConfig
from velocitune_core.contracts import ContractError, InitialLosses, ProxyResult, StartingWeights
from velocitune_core.planned_weights import steering_of
from velocitune_core.strategies import PLANNED, PLANNED_COURSE
from velocitune_core.train.job import TrainJob

HOW = (
    "The training starts under these weights and is steered: a domain that has closed less of its gap than planned at "
    "that step gets more of the next batches, one that has closed more gets less."
)


def with_course(
    found: StartingWeights, options: Mapping[str, Any], initial: InitialLosses, proxies: Sequence[ProxyResult]
) -> StartingWeights:
    """Return a plan with the course that its training is steered along, if the options of `planned` say so.

    Args:
        proxies: of which the largest gives the course.
    """
    if steering_options(options) is None:
        return found
    assert found.planned is not None
    steering = steering_of(found.planned, list(found.domain_weights), initial.losses, proxies)
    planned = found.planned.model_copy(update={"explanation": [*found.planned.explanation, HOW]})
    return found.model_copy(update={"steering": steering, "planned": planned})


def planned_job(job: TrainJob, found: StartingWeights, options: Mapping[str, Any], initial: InitialLosses) -> TrainJob:
    """Return the same run under planned weights: held constant, or steered if the options of `planned` say so.

    Raises ContractError for a plan without a course that must have one.
    """
    held, steer = with_weights(job, job.name, found.domain_weights), steering_options(options)
    if steer is None:
        return held
    if found.steering is None:
        raise ContractError(f"{paths.WEIGHTS}: its plan has no course to steer along; run the stage `weights` again")
    measured = {"initial_loss": {name: initial.losses[name] for name in job.domains}}
    measured |= found.steering.model_dump(mode="json")
    strategy = StrategyConfig(name=PLANNED_COURSE, options={**steer, **measured})
    return held.model_copy(update={"strategy": strategy})


def main_job(
    job: TrainJob,
    strategy: StrategyConfig,
    found: StartingWeights,
    initial: InitialLosses,
    inputs: Mapping[str, Any],
) -> TrainJob:
    """Return the pipeline's main run as it starts from the weights that the stage `weights` found.

    Args:
        inputs: what would decide the weights now.

    Raises ContractError as `starting_from` and `planned_job`.
    """
    started = starting_from(job, strategy.name, found, inputs)
    return planned_job(started, found, strategy.options, initial) if strategy.name == PLANNED else started
