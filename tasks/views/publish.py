"""The results in Prefect's UI and in MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import task

from tasks.runs.jobs import proxy_jobs, reference_job, training_job
from tasks.runs.run_folder import run_folder
from tasks.runs.search import find_weights
from tasks.stages.report import read_results
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_artifacts import publish_table
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import ContractError, InitialLosses, Manifest, Targets, TrainResult
from velocitune_core.report.summary import formatted_rows, summary_metrics
from velocitune_core.train.events import read_events
from velocitune_core.train.job import TrainJob


@task(name="publish results")
def publish_results(params: Params) -> None:
    """Result table, figures, report and summary figures; MLflow is told again whatever it missed."""
    data = read_results(params)
    publish_table("results", "Held-out losses in nats per token, before and after", formatted_rows(data))
    tracker = Tracker(params)
    for job in _jobs(params):
        _catch_up(tracker, job)
    for artifact in (paths.REPORT, paths.TARGETS, paths.MANIFEST, paths.TRAIN, Path("dvc.lock")):
        if artifact.exists():
            tracker.log_artifact(artifact)
    tracker.log_metrics(dict(_flatten(summary_metrics(data))))
    tracker.finish()


def _jobs(params: Params) -> list[TrainJob]:
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    job = training_job(params, manifest, initial, Targets.read(paths.TARGETS))
    done: list[TrainJob] = []

    def result_of(before: TrainJob) -> TrainResult:
        done.append(before)
        return TrainResult.read(run_folder(before) / "result.json")

    with suppress(ContractError):  # `make clean` removes what only the view lacks
        job, _ = find_weights(job, reference_job(job), result_of)
    return [*proxy_jobs(params, manifest), *done, job]


def _catch_up(tracker: Tracker, job: TrainJob) -> None:
    """Tell MLflow a training's events again; it keeps each only once."""
    events = run_folder(job) / "events.jsonl"
    if tracker.active and events.exists():
        child = tracker.child(job.name, run_folder(job).name)
        for event in read_events(events):
            child(event)
        child.close()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)
