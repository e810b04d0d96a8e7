"""Stage `weights`: the domain weights that the training starts from, found by a search or a swarm if need be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from prefect import task

from tasks.runs.budget import check_planned, sizes_of
from tasks.runs.jobs import reference_job, training_job
from tasks.runs.launch import TrainingStoppedError, may_be_retried, run_training
from tasks.runs.planned import planned_weights, weights_inputs
from tasks.runs.price import price_of
from tasks.runs.run_folder import run_folder
from tasks.runs.search import find_weights
from tasks.runs.steering import with_course
from tasks.runs.swarm import Finished, objective_of, of_the_law, swarm_jobs
from tasks.runs.swarm_rounds import Swarm, decided
from tasks.stages.proxies import SECONDS_BEFORE_RETRY, read_proxies, run_small
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher
from tasks.workspace import paths
from tasks.workspace.planned_settings import mixture_of
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, Targets, TrainResult
from velocitune_core.in_words import amount_text
from velocitune_core.planned_weights import Decision
from velocitune_core.strategies import PLANNED
from velocitune_core.train.job import TrainJob

logger = logging.getLogger(__name__)
Outcome = TrainResult | BaseException  # of a run: its result, or why it failed after all retries


class SwarmFailedError(RuntimeError):
    """Too few runs of a swarm finished for a law; the results of those that did are kept in runs/ and reused."""


def swarm_of(params: Params) -> Swarm:
    """Return the swarm that the plan of the configured strategy is made from, before its first round.

    It has no runs for other strategies. Raises ConfigError for an objective that contradicts itself, before any run.
    """
    if params.strategy.name != PLANNED:
        return Swarm(params.mixture, [])
    manifest, mixture = Manifest.read(paths.MANIFEST), mixture_of(params, params.strategy.options)
    check_planned(params, manifest)
    objective_of(params, mixture, manifest, InitialLosses.read(paths.INITIAL), Targets.read(paths.TARGETS))
    return Swarm(mixture, swarm_jobs(params, manifest, mixture))


@task(task_run_name="{job.name}", retry_delay_seconds=SECONDS_BEFORE_RETRY, retry_condition_fn=may_be_retried)
def train_swarm_run(job: TrainJob, params: Params, comparing: bool = False) -> TrainResult:
    """Train a run of a swarm, or take the result of a finished run of the same recipe."""
    return run_small(job, params, comparing)


def after_round(params: Params, swarm: Swarm, outcomes: Sequence[Outcome]) -> Swarm:
    """Return a swarm after its waiting runs have ended, with the runs of the next round if it goes on.

    Raises what `finished_runs` and `going_on` raise.
    """
    return going_on(params, swarm.after_round(finished_runs(swarm.waiting, outcomes, swarm.finished)))


def going_on(params: Params, swarm: Swarm) -> Swarm:
    """Return a swarm with the runs of the next round; with none if it has ended.

    What is decided follows from the results alone: a stage that is started again takes the same decisions, and the
    runs that it has finished. Raises ObjectiveError for guards that no mixture keeps.
    """
    if swarm.mixture.swarm.rounds is None:
        return swarm
    return swarm.going_on(decide(params, swarm), params, Manifest.read(paths.MANIFEST))


@task(name="decide whether the swarm goes on")
def decide(params: Params, swarm: Swarm) -> Decision:
    """Return what the runs so far say, and the weights of the runs of the next round."""
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    decision = decided(swarm, params, manifest, initial, Targets.read(paths.TARGETS))
    made = decision.made
    logger.info(
        "after %d runs the recommended weights may miss the best possible by %s nats, where %g was asked for: %s",
        made.runs,
        "any number of" if made.regret is None else amount_text(made.regret, 4),
        made.tolerance,
        f"further mixtures: {made.further}" if made.further else "the swarm ends",
    )
    return decision


def finished_runs(jobs: Sequence[TrainJob], outcomes: Sequence[Outcome], before: Finished = ()) -> Finished:
    """Return the runs of a swarm that finished; those that failed after all retries are named in a warning.

    Args:
        outcomes: by job, its result, or why it failed.
        before: runs of earlier rounds, which count for the law.

    Raises SwarmFailedError from the first failure if fewer of a size are left than there are domains and one, and
    TrainingStoppedError if a run was stopped on request.
    """
    pairs = list(zip(jobs, outcomes, strict=True))
    finished = [(job, outcome) for job, outcome in pairs if not isinstance(outcome, BaseException)]
    failed = {job.name: outcome for job, outcome in pairs if isinstance(outcome, BaseException)}
    for failure in failed.values():
        if isinstance(failure, TrainingStoppedError):
            raise failure
    if not failed:
        return finished
    named, fewest = ", ".join(failed), len(jobs[0].domains) + 1
    asked = of_the_law([*(job for job, _ in before), *jobs])  # not those of the model itself beside a sibling's
    there = {job.name for job, _ in [*before, *finished]}
    left = [job for job in asked if job.name in there]
    sizes = {job.fraction: sum(each.fraction == job.fraction for each in left) for job in asked}
    size, least = min(sizes.items(), key=lambda each: each[1])
    if least < fewest:
        raise SwarmFailedError(
            f"{named} failed, and a law of {fewest - 1} domains needs at least {fewest} runs, not {least}"
            f"{f' of the fraction {size:g}' if len(sizes) > 1 else ''}; fix the cause and run the stage again, which "
            "trains only these"
        ) from next(iter(failed.values()))
    logger.warning(
        "%s failed after all retries: the plan is made from %d others; the stage, run again, trains what is missing "
        "(`dvc repro --force --single-item weights`, or `compare`)",
        named,
        len(left),
    )
    return finished


@task(name="find weights")
def write_weights(params: Params, swarm: Swarm | None = None) -> StartingWeights:
    """Write results/weights.json: w_0, the weights that the strategy's search finds, or those that a swarm gives.

    A strategy that searches takes the search's run, and before it a reference model's if it needs one.
    """
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    targets = Targets.read(paths.TARGETS)
    if swarm is not None and swarm.finished:
        found = planned_weights(params, swarm, manifest, initial, targets)
        found = with_course(found, params.strategy.options, initial, read_proxies())
        found.write(paths.WEIGHTS)
    else:
        job = training_job(params, manifest, initial, targets)
        found = _searched_weights(params, manifest, job, weights_inputs(params, job, manifest, initial, targets))
        found.write(paths.WEIGHTS)
    return found


def _searched_weights(params: Params, manifest: Manifest, job: TrainJob, inputs: dict[str, Any]) -> StartingWeights:
    def run(job: TrainJob) -> TrainResult:
        child = Tracker(params).child(job.name, run_folder(job))
        watchers = [TerminalWatcher(shows_weights=True), PrefectWatcher(job.name), child]
        return run_training(job, params.resources, watchers, spread=True)

    held, search = find_weights(job, reference_job(job), sizes_of(manifest), run)
    made = zip(search.jobs, search.results, strict=True)
    return StartingWeights(
        strategy=params.strategy.name,
        found_by="search" if search.jobs else "initial",
        domain_weights=held.initial_domain_weights,
        search=[price_of(each, result, manifest) for each, result in made],
        inputs=inputs,
        searched=search.results[-1].domain_weights if search.results else [],
    )
