"""Strategies × seeds: the runs of a comparison; `comparison_report` compares them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prefect import task, unmapped
from prefect.futures import wait

from tasks.runs.budget import check_planned, sizes_of
from tasks.runs.compared import comparison_settings, runs_in_order
from tasks.runs.compared_before import Before, digest_of
from tasks.runs.jobs import compared_job, with_weights
from tasks.runs.launch import TrainingStoppedError, may_be_retried, run_training
from tasks.runs.own_targets import OwnTargets, fit_own_targets, labels_with_own_targets, own_proxy_jobs
from tasks.runs.planned import planned_weights
from tasks.runs.price import price_of_weights
from tasks.runs.run_folder import run_folder
from tasks.runs.search import Search, find_weights, finished_of
from tasks.runs.steering import planned_job, with_course
from tasks.runs.swarm import objective_of, swarm_jobs
from tasks.runs.swarm_rounds import Swarm
from tasks.stages.downstream import evaluate_downstream
from tasks.stages.proxies import read_proxies
from tasks.stages.weights import Outcome, after_round, train_swarm_run
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher
from tasks.workspace import paths
from tasks.workspace.planned_settings import compared_mixture, compared_plans, plan_name
from velocitune_core.config import CompareRun, Params
from velocitune_core.contracts import (
    ComparedRun,
    InitialLosses,
    Manifest,
    ProxyResult,
    Questions,
    StartingWeights,
    Targets,
    TrainResult,
)
from velocitune_core.strategies import measured_options
from velocitune_core.style.text import listed
from velocitune_core.train.job import TrainJob

logger = logging.getLogger(__name__)
SECONDS_BEFORE_RETRY = 5


def compared_swarms(params: Params) -> dict[str, list[TrainJob]]:
    """Return the runs that each plan is made from, by its name: of a planned label, or of each seed of one.

    Raises ConfigError for an objective that contradicts itself, before any run.
    """
    manifest, initial, targets = measured()
    check_planned(params, manifest)
    swarms = {}
    for name, (label, seed) in compared_plans(params).items():
        mixture = compared_mixture(params, label, seed)
        objective_of(params, mixture, manifest, initial, targets)
        swarms[name] = swarm_jobs(params, manifest, mixture)
    return swarms


@task(task_run_name="plan of {name}")
def plan_compared(
    params: Params,
    name: str,
    jobs: Sequence[TrainJob],
    outcomes: Sequence[Outcome],
    own: OwnTargets | None = None,
) -> StartingWeights:
    """Return a plan of the comparison: the weights that a label holds under one seed, or under all of them.

    Further rounds of its swarm are trained here.

    Args:
        outcomes: of the runs of the first round; those that failed for good are left out.
        own: targets of the label, if it has its own.

    Raises what `finished_runs` raises.
    """
    mixture = compared_mixture(params, *compared_plans(params)[name])
    manifest, initial, targets = measured(own)
    swarm = after_round(params, Swarm(mixture, jobs), outcomes)
    while swarm.waiting:
        train = train_swarm_run.with_options(retries=params.proxies.retries)
        futures = train.map(swarm.waiting, unmapped(params), comparing=unmapped(True))
        wait(list(futures))
        swarm = after_round(params, swarm, [future.result(raise_on_failure=False) for future in futures])
    shared = Targets.read(paths.TARGETS)  # every label's price is judged by the same laws
    found = planned_weights(params, swarm, manifest, initial, targets, shared)
    options = comparison_settings(params).runs[label_of_plan(params, name)].options
    return with_course(found, options, initial, _proxies(own))


def label_of_plan(params: Params, name: str) -> str:
    """Return the label that holds a plan."""
    return compared_plans(params)[name][0]


def own_proxies(params: Params) -> dict[str, list[TrainJob]]:
    """Return the proxies that only the targets of one label need, by label with targets of its own."""
    manifest = Manifest.read(paths.MANIFEST)
    return {label: own_proxy_jobs(params, label, manifest) for label in labels_with_own_targets(params)}


@task(task_run_name="targets of {label}")
def fit_compared_targets(params: Params, label: str, trained: Sequence[ProxyResult | BaseException]) -> OwnTargets:
    """Return the targets that a label has for itself; those that lack proxies are flagged.

    Args:
        trained: proxies that only these targets need, or why they failed after all retries.

    Raises TargetError if too few proxies are left, and TrainingStoppedError if one was stopped on request.
    """
    manifest, initial, _ = measured()
    for failure in trained:
        if isinstance(failure, TrainingStoppedError):
            raise failure
    there = [proxy for proxy in trained if not isinstance(proxy, BaseException)]
    own = fit_own_targets(params, label, manifest, initial, [*read_proxies(), *there])
    if missing := own.targets.missing_proxies:
        logger.warning("targets of %s lack the proxies %s; the stage, run again, trains them", label, missing)
    return own


def plan_of_run(params: Params, label: str, seed: int) -> str | None:
    """Return the name of the plan that a run holds; None if it holds none."""
    name = plan_name(params, label, seed)
    return name if name in compared_plans(params) else None


@task(task_run_name="{label}, seed {seed}", retry_delay_seconds=SECONDS_BEFORE_RETRY, retry_condition_fn=may_be_retried)
def train_compared(
    params: Params,
    label: str,
    seed: int,
    parent: ComparedRun | None,
    plan: StartingWeights | None,
    questions: Questions | None,
    own: OwnTargets | None = None,
) -> ComparedRun:
    """Run one label under one seed, or take its finished run; then evaluate it downstream if questions are given.

    Args:
        parent: run whose weights or model this one takes.
        plan: that a planned label holds under this seed.
        own: targets of the label, if it has its own.
    """
    (manifest, initial, targets), settings = measured(own), comparison_settings(params)

    def job_of(name: str) -> TrainJob:
        return compared_job(params, manifest, initial, targets, name, seed)

    run = partial(_trained, params, seed)
    compared, job = settings.runs[label], job_of(label)
    search, uses_targets = Search(), _follows_targets(compared, own)
    proxies = (None, None) if own is None else (own.tokens, own.seconds)
    if compared.weights_of:
        assert parent is not None
        uses_targets, proxies = parent.uses_targets, (parent.proxy_tokens, parent.proxy_seconds)
        job = with_weights(job, job.name, parent.result.mean_domain_weights)
        search = Search(results=(parent.result,))
    elif plan is not None:
        job, uses_targets = planned_job(job, plan, compared.options, initial), plan.steering is not None
    else:
        job, search = find_weights(job, job_of(settings.baseline), sizes_of(manifest), run)
    result, counted = run(job), {proxy.name for proxy in _proxies(own)} if uses_targets else set()
    price = price_of_weights(result, search, parent if compared.weights_of else None, plan, counted)
    return ComparedRun(
        label=label,
        seed=seed,
        result=result,
        search_tokens=price.tokens,
        search_seconds=price.seconds,
        search_runs=price.runs,
        uses_targets=uses_targets,
        proxy_tokens=proxies[0],
        proxy_seconds=proxies[1],
        downstream=_downstream(run_folder(job) / "model", questions, params, f"{job.name}-downstream"),
    )


def _follows_targets(compared: CompareRun, own: OwnTargets | None) -> bool:
    """Return whether a label's strategy works with targets that were fitted."""
    fitted = compared.targets == "fitted" or own is not None
    return fitted and "target_loss" in measured_options(compared.strategy)


def _trained(params: Params, seed: int, job: TrainJob) -> TrainResult:
    """Train, or take the finished run, and show it in every view."""
    child = Tracker(params, comparing=True).child(job.name, run_folder(job), {"velocitune.seed": str(seed)})
    return run_training(job, params.resources, [TerminalWatcher(), PrefectWatcher(job.name), child])


def measured(own: OwnTargets | None = None) -> tuple[Manifest, InitialLosses, Targets]:
    """Return what runs are made from; the targets are those of a label if it has its own."""
    targets = Targets.read(paths.TARGETS) if own is None else own.targets
    return Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL), targets


def _proxies(own: OwnTargets | None) -> Sequence[ProxyResult]:
    return read_proxies() if own is None else own.proxies


def _downstream(model: Path, questions: Questions | None, params: Params, name: str) -> dict[str, float]:
    """Return bits per byte by family of tasks, measured in a run of that name; nothing without questions."""
    return {} if questions is None else evaluate_downstream.fn(model, questions, params, name, spread=False).families


def finished_in_words(params: Params) -> str:
    """Return how many runs are finished before the work, and of which labels that is not known yet."""
    finished, unknown = finished_before(params)
    return f"{finished}, not known yet of {listed(unknown)}" if unknown else str(finished)


def finished_before(params: Params) -> tuple[int, list[str]]:
    """Return how many runs are finished, and the labels of which it is not known yet.

    Those are labels with targets that are still to be fitted or weights that are still to be planned, and labels that
    hold the weights of such a label.
    """
    manifest, initial, targets = measured()
    before = Before(params, manifest, initial, targets, digest_of(params.model.path))
    settings, sizes = comparison_settings(params), sizes_of(manifest)
    found: dict[tuple[str, int], TrainResult] = {}
    unknown: dict[str, None] = {}
    for label, seed in runs_in_order(params):
        job, parent = before.job(label, seed), settings.runs[label].weights_of
        if job is None or parent in unknown:
            unknown[label] = None
            continue
        if parent is not None:
            if (parent, seed) not in found:
                continue
            job = with_weights(job, job.name, found[parent, seed].mean_domain_weights)
        reference = compared_job(params, manifest, initial, targets, settings.baseline, seed, before.digest)
        if (result := finished_of(job, reference, sizes).get(job.name)) is not None:
            found[label, seed] = result
    return len(found), list(unknown)
