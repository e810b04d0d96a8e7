"""What a finished pipeline found, in MLflow: the answer as the note of its run, links to charts, and the model."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tasks.views.mlflow_links import artifact_page, chart_page
from tasks.views.mlflow_metrics import MACRO, SIZE_WEIGHTED
from tasks.views.mlflow_runs import JOB_TAG, PARENT_TAG, Tracker
from tasks.views.prefect_artifacts import markdown_table
from tasks.workspace.home import home
from velocitune_core.comparison.statistics import summarise
from velocitune_core.contracts import Comparison
from velocitune_core.report.compared_mixtures import mixture_rows
from velocitune_core.report.headline import answer, comparison_answer
from velocitune_core.report.report_data import ReportData
from velocitune_core.train.job import KEY_LENGTH

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

COMPARISON_FOLDER = "comparison"  # of its page among the artifacts, where `report` is that of the run
MOST_LINES = 50  # of a chart
MOST_CELLS = 300  # of a table in a note, which MLflow cuts after 8000 characters
NOTE = "mlflow.note.content"  # tag with the description of a run
_PLACE = "velocitune.path"  # tag of a model


def show_answer(tracker: Tracker, results: ReportData, training: str) -> None:
    """Make the answer the note of the parent run, with links to charts of the training and to the report.

    Args:
        training: ID of the training's MLflow run; empty if it is not there.
    """
    found = answer(results)
    with tracker.reaching() as client:
        if client is None:
            return
        links = [link("Report", artifact_page(tracker.experiment, tracker.parent, "report/index.html"))]
        if training:
            charts = _charts(tracker.experiment, training, sorted(results.manifest.domains))
            client.set_tag(training, NOTE, " · ".join(charts))
            links = [*charts, *links]
        mixture = f"Mixture found, to copy:\n\n```yaml\n{found.mixture_yaml.strip()}\n```"
        client.set_tag(tracker.parent, NOTE, f"{found.sentence}\n\n{' · '.join(links)}\n\n{mixture}")


def show_comparison(tracker: Tracker, comparison: Comparison) -> None:
    """Make the answer of a comparison the note of its parent run, with its mixtures and a chart with a line per run."""
    with tracker.reaching() as client:
        if client is None:
            return
        page = artifact_page(tracker.experiment, tracker.parent, f"{COMPARISON_FOLDER}/index.html")
        links = [link("Report of the comparison", page)]
        if ids := _compared(client, tracker, comparison):
            chart = chart_page(tracker.experiment, ids[:MOST_LINES], [MACRO])
            links.insert(0, link("Mean held-out loss of every run", chart))
        parts = [comparison_answer(comparison), " · ".join(links)]
        mixtures = mixture_rows(summarise(comparison))
        if len(mixtures) * len(mixtures[0]) <= MOST_CELLS:
            parts.append(f"Mixtures, mean over run and seeds:\n\n{markdown_table(mixtures)}")
        client.set_tag(tracker.parent, NOTE, "\n\n".join(parts))


def _compared(client: MlflowClient, tracker: Tracker, comparison: Comparison) -> list[str]:
    """Return the IDs of the MLflow runs of a comparison: of each recipe the newest, whatever the name of its folder."""
    recipes = {run.result.recipe[:KEY_LENGTH] for run in comparison.runs}
    newest: dict[str, str] = {}
    condition = f"tags.`{PARENT_TAG}` = '{tracker.parent}'"
    for run in client.search_runs([tracker.experiment], condition, order_by=["attributes.start_time DESC"]):
        recipe = run.data.tags.get(JOB_TAG, "").rpartition("-")[2]
        if recipe in recipes:
            newest.setdefault(recipe, run.info.run_id)
    return list(newest.values())


def log_model(tracker: Tracker, results: ReportData, training: str, folder: Path) -> None:
    """Log the trained model by reference, with its held-out losses: its weights stay where they are.

    A model that was logged before is given its present place, which is no more that of the model before it there. A
    temporary copy is none: DVC deletes it.
    """
    with tracker.reaching() as client:
        if client is None or not training or not folder.is_dir():
            return
        from mlflow.entities import LoggedModelOutput, Metric

        train = results.train
        found = client.search_logged_models([tracker.experiment], f"source_run_id = '{training}'", max_results=1)
        model = found[0] if found else _new_model(client, tracker.experiment, results, training)
        place = {_PLACE: str(folder.absolute())} if home() == Path.cwd() else {}
        for other in _models_at(client, tracker.experiment, place.get(_PLACE)):
            if other != model.model_id:
                client.delete_logged_model_tag(other, _PLACE)
        client.set_logged_model_tags(model.model_id, place | {"velocitune.recipe": train.recipe})
        if found:
            return
        now = round(time.time() * 1000)
        losses = {f"loss/{name}": loss for name, loss in train.final.items()}
        losses[MACRO] = sum(train.final.values()) / len(train.final)
        values = [Metric(name, loss, now, train.steps, model_id=model.model_id) for name, loss in losses.items()]
        client.log_batch(tracker.parent, metrics=values)
        for run in (training, tracker.parent):
            client.log_outputs(run, [LoggedModelOutput(model.model_id, train.steps)])


def _models_at(client: MlflowClient, experiment: str, place: str | None) -> list[str]:
    """Return the IDs of the models that are said to lie in a folder."""
    if place is None:
        return []
    quote = '"' if "'" in place else "'"
    found = client.search_logged_models([experiment], f"tags.`{_PLACE}` = {quote}{place}{quote}")
    return [each.model_id for each in found]


def _new_model(client: MlflowClient, experiment: str, results: ReportData, training: str) -> LoggedModel:
    """Create a model as `mlflow.create_external_model` does, which has one store for all threads of a process."""
    from mlflow.models.utils import get_external_mlflow_model_spec
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

    found, train = answer(results), results.train
    seed = None if train.settings is None else train.settings.everything.get("training", {}).get("seed")
    name = re.sub(r"[/:.%\"']", "_", f"{found.strategy}-{train.steps}-steps{'' if seed is None else f'-seed-{seed}'}")
    settings = {"strategy": found.strategy, "tokens": str(train.tokens), "steps": str(train.steps)}
    settings |= {} if seed is None else {"seed": str(seed)}
    tags, kind = {MLFLOW_MODEL_IS_EXTERNAL: "true"}, "causal language model"
    model = client.create_logged_model(experiment, name, training, tags, settings, kind)
    with TemporaryDirectory() as folder:
        get_external_mlflow_model_spec(model).save(str(Path(folder, "MLmodel")))
        client.log_model_artifacts(model.model_id, folder)
    return client.finalize_logged_model(model.model_id, "READY")


def _charts(experiment: str, run: str, domains: Sequence[str]) -> list[str]:
    names = domains[:MOST_LINES]
    weights, losses = [f"weight/{name}" for name in names], [f"loss/{name}" for name in names]
    return [
        link("All weights in one chart", chart_page(experiment, [run], weights)),
        link("All held-out losses in one chart", chart_page(experiment, [run], losses)),
        link("Their averages", chart_page(experiment, [run], [MACRO, SIZE_WEIGHTED])),
    ]


def link(text: str, page: str) -> str:
    """Return a link of markdown."""
    return f"[{text}]({page})"
