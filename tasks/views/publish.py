"""The results in Prefect's UI and in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import task

from tasks.views.mlflow_described import MAIN, flatten
from tasks.views.mlflow_recorded import log_recorded
from tasks.views.mlflow_result import log_model, show_answer
from tasks.views.mlflow_runs import Tracker
from tasks.views.mlflow_weights import log_weights
from tasks.views.prefect_artifacts import publish_table
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import StartingWeights
from velocitune_core.report.fitted_plan import FittedPlan, plan_metrics
from velocitune_core.report.html import ReportFigure
from velocitune_core.report.summary import ReportData, formatted_rows, summary_metrics
from velocitune_core.report.swarm_rounds import round_metrics
from velocitune_core.train.events import read_events
from velocitune_core.train.timeline import timeline


@dataclass(frozen=True)
class PublishedRun:
    """A run of the training program that the results come from."""

    name: str
    folder: Path


@task(name="publish results")
def publish_results(params: Params, results: ReportData, runs: Sequence[PublishedRun]) -> None:
    """Publish the table of results, figures, report and metrics; replay the runs' events that MLflow has missed."""
    publish_table("results", "Held-out losses in nats per token, before and after", formatted_rows(results))
    tracker = Tracker(params)
    shown = {run.name: replay(tracker, run) for run in runs}
    for artifact in (paths.REPORT, paths.TARGETS, paths.MANIFEST, paths.TRAIN):
        if artifact.exists():
            tracker.log_artifact(artifact)
    values = flatten(summary_metrics(results), "/")
    tracker.log_metrics({name: float(value) for name, value in values if isinstance(value, int | float)})
    training = shown.get(MAIN, "")
    log_model(tracker, results, training, paths.TRAINED_MODEL)
    show_answer(tracker, results, training)
    log_recorded(tracker)
    tracker.finish()


def publish_plan(params: Params, fitted: FittedPlan, figures: Sequence[ReportFigure]) -> None:
    """Log a plan to the parent run: its page, its figures, and as metrics its weights, predictions, price and rounds.

    What was known after a round is at the step of the number of runs so far.
    """
    tracker = Tracker(params)
    tracker.log_artifact(paths.PLAN_PAGE)
    for each in figures:
        tracker.log_figure(each.figure, f"plan/{each.name}.png")
    tracker.log_metrics(plan_metrics(fitted))
    for each in fitted.planned.rounds:
        tracker.log_metrics(round_metrics(each), step=each.runs)


def publish_weights(params: Params, found: StartingWeights, initial_domain_weights: Mapping[str, float]) -> None:
    """Show in MLflow the domain weights that the training starts from, how they were found, and what that cost."""
    log_weights(Tracker(params), found, initial_domain_weights)


def publish_recorded(params: Params, comparing: bool) -> None:
    """Show in MLflow what DVC has recorded, once the last stage of a pipeline, or comparison, is committed."""
    log_recorded(Tracker(params, comparing))


def replay(tracker: Tracker, run: PublishedRun) -> str:
    """Log the events of a run to MLflow, which keeps each only once; return the ID of its MLflow run.

    A run whose folder is gone is left out, and has none.
    """
    events = run.folder / "events.jsonl"
    if not tracker.active or not events.exists():
        return ""
    child = tracker.child(run.name, run.folder)
    for event in timeline(read_events(events)):
        child(event)
    child.close()
    return child.run_id
