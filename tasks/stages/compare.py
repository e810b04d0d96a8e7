"""Strategies × seeds: each run, and the comparison of all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import task

from tasks.runs.budget import sizes_of
from tasks.runs.cores import usable_cores
from tasks.runs.devices import gpu_count
from tasks.runs.jobs import compared_job, initial_domain_weights, with_weights
from tasks.runs.launch import may_be_retried, run_training
from tasks.runs.run_folder import finished_result, run_folder
from tasks.runs.search import Search, find_weights
from tasks.runs.swarm import objective_of, planned_weights, swarm_jobs
from tasks.stages.downstream import evaluate_downstream
from tasks.stages.proxies import read_proxies
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_artifacts import publish_table
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher, print_table
from tasks.workspace import paths
from tasks.workspace.planned_settings import mixture_of
from velocitune_core.comparison.checks import check_comparison
from velocitune_core.comparison.tables import comparison_metrics, formatted_comparison
from velocitune_core.config import Compare, ConfigError, Params
from velocitune_core.contracts import (
    ComparedRun,
    Comparison,
    InitialLosses,
    Manifest,
    Questions,
    StartingWeights,
    Targets,
    TrainResult,
)
from velocitune_core.files import replacing
from velocitune_core.report.comparison_page import comparison_figures, render_comparison
from velocitune_core.report.html import save_png
from velocitune_core.strategies import PLANNED, measured_options, strategy_class
from velocitune_core.train.job import TrainJob

logger = logging.getLogger(__name__)
SECONDS_BEFORE_RETRY = 5


def comparison_settings(params: Params) -> Compare:
    """Return the comparison's settings. Raises ConfigError if params.yaml has none."""
    if params.compare is None:
        raise ConfigError(f"{paths.PARAMS}: compare: missing; name the strategies to compare and their seeds")
    return params.compare


def side_by_side(params: Params) -> Params:
    """Return settings under which runs use the whole machine: on a CPU, one run of one thread per usable core.

    (A small model gains little from a second thread, and two processes of two threads each slow each other down.)
    """
    if gpu_count() or params.resources.runs_per_device > 1:
        return params
    resources = params.resources.model_copy(update={"runs_per_device": usable_cores(), "threads": 1})
    return params.model_copy(update={"resources": resources})


def parent_of(params: Params, label: str) -> str | None:
    """Return the label whose run, under the same seed, must precede this one; None if there is none."""
    settings = comparison_settings(params)
    compared = settings.runs[label]
    if strategy_class(compared.strategy).needs_reference:
        return settings.baseline
    return compared.weights_of


def runs_in_order(params: Params) -> list[tuple[str, int]]:
    """Return (label, seed) of every run, seed by seed, each after the run that it depends on."""
    settings = comparison_settings(params)
    labels = sorted(settings.runs, key=lambda label: parent_of(params, label) is not None)  # stable
    return [(label, seed) for seed in settings.seeds for label in labels]


def compared_swarms(params: Params) -> dict[str, list[TrainJob]]:
    """Return the runs that the plan of each planned label is made from; all seeds of the label share them.

    Raises ConfigError for an objective that contradicts itself, before any run.
    """
    manifest, initial, targets = _measured()
    swarms = {}
    for label, run in comparison_settings(params).runs.items():
        if run.strategy == PLANNED:
            mixture = mixture_of(params, run.options)
            objective_of(params, mixture, manifest, initial, targets)
            swarms[label] = swarm_jobs(params, manifest, mixture)
    return swarms


@task(task_run_name="plan of {label}")
def plan_compared(
    params: Params, label: str, jobs: Sequence[TrainJob], results: Sequence[TrainResult]
) -> StartingWeights:
    """Return the weights that a planned label holds under every seed."""
    mixture = mixture_of(params, comparison_settings(params).runs[label].options)
    return planned_weights(params, mixture, *_measured(), list(zip(jobs, results, strict=True)))


@task(task_run_name="{label}, seed {seed}", retry_delay_seconds=SECONDS_BEFORE_RETRY, retry_condition_fn=may_be_retried)
def train_compared(
    params: Params,
    label: str,
    seed: int,
    parent: ComparedRun | None,
    plan: StartingWeights | None,
    questions: Questions | None,
) -> ComparedRun:
    """Run one label under one seed, or take its finished run; then evaluate it downstream if questions are given.

    Args:
        parent: run whose weights or model this one takes.
        plan: of a planned label.
    """
    (manifest, initial, targets), settings = _measured(), comparison_settings(params)

    def job_of(name: str) -> TrainJob:
        return compared_job(params, manifest, initial, targets, name, seed)

    def run(job: TrainJob) -> TrainResult:
        child = Tracker(params).child(job.name, run_folder(job), {"velocitune.seed": str(seed)})
        return run_training(job, params.resources, [TerminalWatcher(), PrefectWatcher(job.name), child])

    compared, job = settings.runs[label], job_of(label)
    search = Search()
    uses_targets = compared.targets == "fitted" and "target_loss" in measured_options(compared.strategy)
    if compared.weights_of:
        assert parent is not None
        uses_targets = parent.uses_targets
        job = with_weights(job, job.name, parent.result.mean_domain_weights)
        search = Search(results=(parent.result,))
    elif plan is not None:
        job = with_weights(job, job.name, plan.domain_weights)
    else:
        job, search = find_weights(job, job_of(settings.baseline), sizes_of(manifest), run)
    result = run(job)
    search_tokens, search_seconds = search.tokens, search.seconds
    if plan is not None and plan.planned is not None:  # in tokens of this model that take as many operations
        search_tokens = round(plan.planned.worth.share * result.tokens)
        search_seconds = sum(each.seconds for each in plan.runs)
    return ComparedRun(
        label=label,
        seed=seed,
        result=result,
        search_tokens=search_tokens,
        search_seconds=search_seconds,
        uses_targets=uses_targets,
        downstream=_downstream(run_folder(job) / "model", questions, params, f"{job.name}-downstream"),
    )


def _measured() -> tuple[Manifest, InitialLosses, Targets]:
    return Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL), Targets.read(paths.TARGETS)


def _downstream(model: Path, questions: Questions | None, params: Params, name: str) -> dict[str, float]:
    """Return bits per byte by family of tasks, measured in a run of that name; nothing without questions."""
    return {} if questions is None else evaluate_downstream.fn(model, questions, params, name, spread=False).families


@task(name="write comparison")
def write_comparison(params: Params, runs: Sequence[ComparedRun], plans: Mapping[str, StartingWeights]) -> Comparison:
    """Write results/comparison.json, and comparison/report with one page, its figures, and the plans.

    Args:
        plans: by label.

    Raises ContractError for runs that cannot be compared.
    """
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    targets, settings, proxies = Targets.read(paths.TARGETS).losses(), comparison_settings(params), read_proxies()
    without_gap = [name for name, loss in initial.losses.items() if targets[name] >= loss]
    comparison = Comparison(
        baseline=settings.baseline,
        frontier=[label for label in settings.frontier if any(run.label == label for run in runs)],
        retained=without_gap if settings.retained is None else list(settings.retained),
        initial=initial.losses,
        targets=targets,
        initial_domain_weights=initial_domain_weights(params, manifest),
        domain_tokens={name: domain.train.tokens for name, domain in manifest.domains.items()},
        proxy_tokens=sum(proxy.tokens for proxy in proxies),
        proxy_seconds=sum(proxy.seconds for proxy in proxies),
        runs=list(runs),
    )
    check_comparison(comparison)
    comparison.write(paths.COMPARISON)
    figures = comparison_figures(comparison)
    with replacing(paths.COMPARISON_REPORT) as folder:
        (folder / "figures").mkdir(parents=True)
        for label, plan in plans.items():
            plan.write(folder / paths.PLANS / f"{label}.json")
        for each in figures:
            save_png(each.figure, folder / "figures" / f"{each.name}.png")
        (folder / "index.html").write_text(render_comparison(comparison, figures), encoding="utf-8")
    return comparison


@task(name="publish comparison")
def publish_comparison(params: Params, comparison: Comparison) -> None:
    """Show the table in Prefect's UI and on the terminal, and log page, figures and metrics to MLflow."""
    rows = formatted_comparison(comparison)
    publish_table("comparison", "Strategies compared, mean ± 95 % interval over seeds", rows)
    print_table("Strategies compared", rows)
    tracker = Tracker(params)
    tracker.log_artifact(paths.COMPARISON_REPORT)
    tracker.log_artifact(paths.COMPARISON)
    tracker.log_metrics(comparison_metrics(comparison))
    tracker.finish()
    logger.info("comparison: %s", paths.COMPARISON_REPORT / "index.html")


def finished_before(params: Params) -> int:
    """Count the finished runs, among those that depend on no other run."""
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    targets = Targets.read(paths.TARGETS)
    independent = [(label, seed) for label, seed in runs_in_order(params) if parent_of(params, label) is None]
    jobs = [compared_job(params, manifest, initial, targets, label, seed) for label, seed in independent]
    return sum(finished_result(job) is not None for job in jobs if job.strategy.search is None)
