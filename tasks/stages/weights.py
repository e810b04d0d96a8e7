"""Stage `weights`: the domain weights that the training starts from, found by a search or a swarm if need be."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prefect import task
from prefect.states import State

from tasks.runs.budget import sizes_of
from tasks.runs.jobs import reference_job, training_job
from tasks.runs.launch import TrainingStoppedError, may_be_retried, run_training
from tasks.runs.price import price_of
from tasks.runs.run_folder import run_folder
from tasks.runs.search import find_weights
from tasks.runs.steering import with_course
from tasks.runs.swarm import objective_of, planned_weights, swarm_jobs
from tasks.stages.proxies import SECONDS_BEFORE_RETRY, read_proxies, run_small
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher
from tasks.workspace import paths
from tasks.workspace.planned_settings import mixture_of
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, Targets, TrainResult
from velocitune_core.strategies import PLANNED
from velocitune_core.train.job import TrainJob

logger = logging.getLogger(__name__)
HOW_TO_RETRY = "`dvc repro --force --single-item weights` trains what is missing"
Finished = Sequence[tuple[TrainJob, TrainResult]]


class SwarmFailedError(RuntimeError):
    """Too few runs of a swarm finished for a law; the results of those that did are kept in runs/ and reused."""


def swarm_of(params: Params) -> list[TrainJob]:
    """Return the runs that the plan of the configured strategy is made from; none for other strategies.

    Raises ConfigError for an objective that contradicts itself, before any run.
    """
    if params.strategy.name != PLANNED:
        return []
    manifest, mixture = Manifest.read(paths.MANIFEST), mixture_of(params, params.strategy.options)
    objective_of(params, mixture, manifest, InitialLosses.read(paths.INITIAL), Targets.read(paths.TARGETS))
    return swarm_jobs(params, manifest, mixture)


@task(task_run_name="{job.name}", retry_delay_seconds=SECONDS_BEFORE_RETRY, retry_condition_fn=may_be_retried)
def train_swarm_run(job: TrainJob, params: Params) -> TrainResult:
    """Train a run of a swarm, or take the result of a finished run of the same recipe."""
    return run_small(job, params)


def finished_runs(jobs: Sequence[TrainJob], states: Sequence[State]) -> Finished:
    """Return the runs of a swarm that finished; those that failed after all retries are named in a warning.

    Raises SwarmFailedError from the first failure if fewer are left than there are domains and one, and
    TrainingStoppedError if a run was stopped on request.
    """
    finished = [(job, state.result()) for job, state in zip(jobs, states, strict=True) if state.is_completed()]
    failures = [state.result(raise_on_failure=False) for state in states if not state.is_completed()]
    for failure in failures:
        if isinstance(failure, TrainingStoppedError):
            raise failure
    if not failures:
        return finished
    done = {job.name for job, _ in finished}
    named, fewest = ", ".join(job.name for job in jobs if job.name not in done), len(jobs[0].domains) + 1
    if len(finished) < fewest:
        raise SwarmFailedError(
            f"{named} failed, and a law of {fewest - 1} domains needs at least {fewest} runs, not {len(finished)}; fix "
            "the cause and run the stage again, which trains only these"
        ) from failures[0]
    logger.warning("%s failed after all retries: the plan is made from %d others; %s", named, len(done), HOW_TO_RETRY)
    return finished


@task(name="find weights")
def write_weights(params: Params, swarm: Finished = ()) -> StartingWeights:
    """Write results/weights.json: w_0, the weights that the strategy's search finds, or those that a swarm gives.

    A strategy that searches takes the search's run, and before it a reference model's if it needs one.
    """
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    targets = Targets.read(paths.TARGETS)
    if swarm:
        mixture = mixture_of(params, params.strategy.options)
        found = planned_weights(params, mixture, manifest, initial, targets, swarm)
        found = with_course(found, params.strategy.options, initial, read_proxies())
        found.write(paths.WEIGHTS)
        Tracker(params).log_artifact(paths.WEIGHTS)
    else:
        found = _searched_weights(params, manifest, training_job(params, manifest, initial, targets))
        found.write(paths.WEIGHTS)
    return found


def _searched_weights(params: Params, manifest: Manifest, job: TrainJob) -> StartingWeights:
    def run(job: TrainJob) -> TrainResult:
        child = Tracker(params).child(job.name, run_folder(job))
        watchers = [TerminalWatcher(), PrefectWatcher(job.name), child]
        return run_training(job, params.resources, watchers, spread=True)

    held, search = find_weights(job, reference_job(job), sizes_of(manifest), run)
    made = zip(search.jobs, search.results, strict=True)
    return StartingWeights(
        strategy=params.strategy.name,
        found_by="search" if search.jobs else "initial",
        domain_weights=held.initial_domain_weights,
        search=[price_of(each, result, manifest) for each, result in made],
    )
