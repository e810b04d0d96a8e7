"""The report, its figures and metrics.json, from the files of the other stages."""

from __future__ import annotations

import json

import yaml
from prefect import task

from tasks.runs.jobs import initial_domain_weights, proxy_jobs, starting_from, training_job
from tasks.runs.run_folder import run_folder
from tasks.stages.proxies import read_proxies
from tasks.views.publish import PublishedRun
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, Targets, TrainResult
from velocitune_core.files import replacing, write_text
from velocitune_core.report.html import save_png
from velocitune_core.report.run_page import render_report, report_figures
from velocitune_core.report.summary import ReportData, summary_metrics


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
    """Write report/index.html, report/figures/*.png and metrics.json.

    The folder is replaced. Raises ContractError as `read_results` does, before anything is written.
    """
    data = read_results(params)
    drawn = report_figures(data)
    page = render_report(data, drawn)
    with replacing(paths.REPORT) as folder:
        figures = folder / "figures"
        figures.mkdir(parents=True)
        for each in drawn:
            save_png(each.figure, figures / f"{each.name}.png")
        (folder / "index.html").write_text(page, encoding="utf-8")
    write_text(paths.METRICS, json.dumps(summary_metrics(data), indent=2, allow_nan=False) + "\n")


def reported_runs(params: Params) -> list[PublishedRun]:
    """Return the runs that the results come from: proxies, those that found domain weights, and the training."""
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    training = params.training.model_copy(update={"precision": initial.precision})  # `auto` may differ on this machine
    params = params.model_copy(update={"training": training})
    job = training_job(params, manifest, initial, Targets.read(paths.TARGETS))
    found = StartingWeights.read(paths.WEIGHTS)
    before = [PublishedRun(each.name, paths.RUNS / each.folder) for each in found.own_runs]
    proxies = [PublishedRun(each.name, run_folder(each)) for each in proxy_jobs(params, manifest)]
    job = starting_from(job, params.strategy.name, found)
    return [*proxies, *before, PublishedRun(job.name, run_folder(job))]
