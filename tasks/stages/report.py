"""The report, its figures and metrics.json, from the files of the other stages."""

from __future__ import annotations

import json

import yaml
from prefect import task

from tasks.runs.jobs import initial_domain_weights, proxy_jobs, training_job
from tasks.runs.run_folder import run_folder
from tasks.runs.steering import main_job
from tasks.runs.swarm import objective_of
from tasks.stages.proxies import read_proxies
from tasks.views.publish import PublishedRun
from tasks.workspace import paths
from tasks.workspace.planned_settings import mixture_of
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, Targets, TrainResult
from velocitune_core.files import replacing, write_text
from velocitune_core.mixture_law import optimise_mixture
from velocitune_core.planned_weights import full_law, largest_law
from velocitune_core.report.html import save_png
from velocitune_core.report.plan_page import plan_page
from velocitune_core.report.run_page import render_report, report_figures
from velocitune_core.report.summary import ReportData, summary_metrics

PLAN_PAGE = "plan.html"


def read_results(params: Params) -> ReportData:
    """Read everything that a report is made from.

    Raises ContractError for a file that is missing or malformed, or for files of different domains.
    """
    manifest = Manifest.read(paths.MANIFEST)
    return ReportData(
        manifest=manifest,
        initial=InitialLosses.read(paths.INITIAL),
        proxies=tuple(read_proxies()),
        targets=Targets.read(paths.TARGETS),
        train=TrainResult.read(paths.TRAIN),
        weights=StartingWeights.read(paths.WEIGHTS),
        initial_domain_weights=initial_domain_weights(params, manifest),
        config=yaml.safe_dump(params.shown(), sort_keys=False, allow_unicode=True),
        extras={
            "documents": manifest.documents.described(),
            "optimizer": params.training.optimizer.text(),
        },
    )


@task(name="write report")
def write_report(params: Params) -> None:
    """Write report/index.html, report/figures/*.png, metrics.json, and report/plan.html if weights were planned.

    The folder is replaced. Raises ContractError as `read_results` does, before anything is written.
    """
    data = read_results(params)
    drawn = report_figures(data)
    page, plan = render_report(data, drawn), _page_of_plan(params, data)
    with replacing(paths.REPORT) as folder:
        figures = folder / "figures"
        figures.mkdir(parents=True)
        for each in drawn:
            save_png(each.figure, figures / f"{each.name}.png")
        (folder / "index.html").write_text(page, encoding="utf-8")
        if plan is not None:
            (folder / PLAN_PAGE).write_text(plan, encoding="utf-8")
    write_text(paths.METRICS, json.dumps(summary_metrics(data), indent=2, allow_nan=False) + "\n")


def _page_of_plan(params: Params, data: ReportData) -> str | None:
    """Return the page that answers for any mixture, by the law of the plan, fitted again to the same runs."""
    if data.weights is None or (planned := data.weights.planned) is None:
        return None
    mixture = mixture_of(params, params.strategy.options)
    objective = objective_of(params, mixture, data.manifest, data.initial, data.targets)
    fitted = largest_law(planned.runs, planned.law["name"], mixture.swarm.bootstrap)
    law = full_law(fitted, planned.runs, data.initial_domain_weights, data.targets)
    return plan_page(law, objective, optimise_mixture(law, objective))


def reported_runs(params: Params) -> list[PublishedRun]:
    """Return the runs that the results come from: proxies, those that found domain weights, and the training."""
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    training = params.training.model_copy(update={"precision": initial.precision})  # `auto` may differ on this machine
    params = params.model_copy(update={"training": training})
    job = training_job(params, manifest, initial, Targets.read(paths.TARGETS))
    found = StartingWeights.read(paths.WEIGHTS)
    before = [PublishedRun(each.name, paths.RUNS / each.folder) for each in found.own_runs]
    proxies = [PublishedRun(each.name, run_folder(each)) for each in proxy_jobs(params, manifest)]
    job = main_job(job, params.strategy, found, initial)
    return [*proxies, *before, PublishedRun(job.name, run_folder(job))]
