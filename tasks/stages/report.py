"""The report, its figures and metrics.json, from the files of the other stages."""

from __future__ import annotations

import json

import yaml
from prefect import task

from tasks.runs.jobs import initial_domain_weights
from tasks.stages.proxies import read_proxies
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, Targets, TrainResult
from velocitune_core.files import replacing, write_text
from velocitune_core.report.run_page import render_report, report_figures, save_png
from velocitune_core.report.summary import ReportData, summary_metrics


def read_results(params: Params) -> ReportData:
    """Everything a report is made from.

    Raises ContractError for a file that is missing or malformed, or for files of different domains.
    """
    manifest = Manifest.read(paths.MANIFEST)
    return ReportData(
        manifest=manifest,
        initial=InitialLosses.read(paths.INITIAL),
        proxies=tuple(read_proxies()),
        targets=Targets.read(paths.TARGETS),
        train=TrainResult.read(paths.TRAIN),
        weights_0=initial_domain_weights(params, manifest),
        config=yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


@task(name="write report")
def write_report(params: Params) -> None:
    """report/index.html, report/figures/*.png and metrics.json.

    Whatever stood in the folder is replaced. Raises ContractError as `read_results` does, before anything is written.
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
