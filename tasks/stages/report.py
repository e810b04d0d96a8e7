"""The report, its figures and metrics.json, from the files of the other stages."""

from __future__ import annotations

import json
import logging

import yaml
from prefect import task

from tasks.runs.facts import run_facts
from tasks.runs.jobs import initial_domain_weights, proxy_jobs, training_job
from tasks.runs.run_folder import run_folder
from tasks.runs.steering import main_job
from tasks.runs.swarm import objective_of
from tasks.stages.proxies import read_proxies
from tasks.views.publish import PublishedRun, publish_plan
from tasks.views.summary import publish_answer, publish_comparison_answer
from tasks.workspace import paths
from tasks.workspace.planned_settings import mixture_of
from velocitune_core.config import Params
from velocitune_core.contracts import (
    Comparison,
    ContractError,
    InitialLosses,
    Manifest,
    StartingWeights,
    Targets,
    TrainResult,
)
from velocitune_core.files import replacing, write_text
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.report.html import save_png
from velocitune_core.report.lines import lines_over_tokens
from velocitune_core.report.run_page import plan_figures, render_report, report_figures
from velocitune_core.report.summary import ReportData, summary_metrics

logger = logging.getLogger(__name__)


def read_results(params: Params) -> ReportData:
    """Read everything that a report is made from.

    Raises ContractError for a file that is missing or malformed, or for files of different domains.
    """
    manifest, train = Manifest.read(paths.MANIFEST), TrainResult.read(paths.TRAIN)
    settings = train.settings.everything if train.settings else params.shown()
    return ReportData(
        manifest=manifest,
        initial=InitialLosses.read(paths.INITIAL),
        proxies=tuple(read_proxies()),
        targets=Targets.read(paths.TARGETS),
        train=train,
        weights=StartingWeights.read(paths.WEIGHTS),
        initial_domain_weights=initial_domain_weights(params, manifest),
        comparison=_comparison(),
        config=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        extras={
            "documents": manifest.documents.described(),
            "optimizer": params.training.optimizer.text(),
        },
    )


def _comparison() -> Comparison | None:
    """Return the comparison, if there is one that can be read: the report needs none."""
    try:
        return Comparison.read(paths.COMPARISON)
    except ContractError:
        return None


def publish_outcome(goal: str, params: Params) -> None:
    """Put the answer of a pipeline on the flow run that this is called in.

    Args:
        goal: `report` or `compare`.
    """
    if goal == "compare":
        publish_comparison_answer(Comparison.read(paths.COMPARISON), params.tracking)
    else:
        publish_answer(read_results(params), params.tracking)


@task(name="write report")
def write_report(params: Params) -> None:
    """Write report/index.html, report/figures/*.png, report/lines/*.json, metrics.json; report/plan.html if planned.

    The folder is replaced. Raises ContractError as `read_results` does, before anything is written.
    """
    data = read_results(params)
    fitted = fitted_plan(params, data.weights, data.manifest, data.initial, data.targets)
    facts = run_facts(params, data.manifest, data.train.recipe, data.train.settings)
    drawn = report_figures(data, fitted, facts)
    page = render_report(data, drawn, facts)
    with replacing(paths.REPORT) as folder:
        figures = folder / "figures"
        figures.mkdir(parents=True)
        for each in drawn:
            save_png(each.figure, figures / f"{each.name}.png")
        (folder / "lines").mkdir()
        for name, table in lines_over_tokens(data).items():
            (folder / "lines" / f"{name}.json").write_text(json.dumps(table), encoding="utf-8")
        (folder / "index.html").write_text(page, encoding="utf-8")
        if fitted is not None:
            (folder / paths.PLAN_PAGE.name).write_text(fitted.page(_trained(data)), encoding="utf-8")
    write_text(paths.METRICS, json.dumps(summary_metrics(data), indent=2, allow_nan=False) + "\n")


@task(name="write plan")
def write_plan(params: Params, found: StartingWeights) -> None:
    """Write results/plan.html, which shows what the plan predicts for any mixture, and show the plan in MLflow.

    Weights that were not planned have no page; one of an earlier plan is removed.
    """
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    fitted = fitted_plan(params, found, manifest, initial, Targets.read(paths.TARGETS))
    if fitted is None:
        paths.PLAN_PAGE.unlink(missing_ok=True)
        return
    write_text(paths.PLAN_PAGE, fitted.page())
    publish_plan(params, fitted, plan_figures(fitted))
    logger.info("the plan, and what any other mixture would give: %s", paths.PLAN_PAGE)


def fitted_plan(
    params: Params, found: StartingWeights | None, manifest: Manifest, initial: InitialLosses, targets: Targets
) -> FittedPlan | None:
    """Return the plan of the configured strategy with its law, fitted again to the same runs; None without a plan."""
    if found is None or found.planned is None:
        return None
    mixture = mixture_of(params, params.strategy.options)
    objective = objective_of(params, mixture, manifest, initial, targets)
    return FittedPlan.of(found.planned, objective, targets, mixture.swarm.bootstrap)


def _trained(data: ReportData) -> dict[str, dict[str, float]]:
    """Return the mixture of the run, if it is another than the one that was planned."""
    mean = data.train.mean_domain_weights
    held = {} if data.weights is None else data.weights.domain_weights
    same = set(mean) == set(held) and all(abs(mean[name] - weight) < 5e-4 for name, weight in held.items())
    return {} if same else {"this run": mean}


def reported_runs(params: Params) -> list[PublishedRun]:
    """Return the runs that the results come from: proxies, those that found domain weights, and the training."""
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    training = params.training.model_copy(update={"precision": initial.precision})  # `auto` may differ on this machine
    params = params.model_copy(update={"training": training})
    job = training_job(params, manifest, initial, Targets.read(paths.TARGETS))
    found = StartingWeights.read(paths.WEIGHTS)
    before = [PublishedRun(each.name, paths.RUNS / each.folder) for each in found.own_runs]
    proxies = [PublishedRun(each.name, run_folder(each)) for each in proxy_jobs(params, manifest)]
    job = main_job(job, params.strategy, found, initial, found.inputs)
    return [*proxies, *before, PublishedRun(job.name, run_folder(job))]
