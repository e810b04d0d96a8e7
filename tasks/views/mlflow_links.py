"""Addresses of MLflow's pages for model training: without `workflowType` MLflow 3 shows those for applications."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from tasks.workspace.home import home
from tasks.workspace.paths import STATE
from velocitune_core.config import Tracking, without_user

SERVED = "http://127.0.0.1:5000"  # by `make serve`, unless the file below has another address
SERVED_NOW = STATE / "mlflow-address"  # of a workspace, while `make serve` goes on
_TRAINING = "workflowType=machine_learning"
_experiments: dict[tuple[str, str], str] = {}  # store and name → ID, of those that this process has opened


def runs_page(experiment: str) -> str:
    """Return the page with the runs of an experiment, relative to the server; of all experiments if it is empty."""
    return f"#/experiments/{experiment}/runs?{_TRAINING}" if experiment else f"#/experiments?{_TRAINING}"


def artifact_page(experiment: str, run: str, path: str) -> str:
    """Return the page that shows a file that was logged to a run."""
    return f"#/experiments/{experiment}/runs/{run}/artifacts/{quote(path)}?{_TRAINING}"


def chart_page(experiment: str, runs: Sequence[str], metrics: Sequence[str]) -> str:
    """Return the page that draws metrics of runs over the steps, all in one chart."""
    query = {
        "runs": list(runs),
        "metric": metrics[0],
        "experiments": [experiment],
        "plot_metric_keys": list(metrics),
        "plot_layout": {"autosize": True},
    }
    fields = [f"{key}={quote(json.dumps(value))}" for key, value in query.items()]
    return "#/metric?" + "&".join(
        [*fields, "x_axis=step&y_axis_scale=linear&line_smoothness=1&show_point=false", _TRAINING]
    )


def remember_experiment(settings: Tracking, experiment: str) -> None:
    """Keep the ID of an experiment for the links that this process prints: to look it up again, MLflow is needed."""
    _experiments[settings.uri, settings.experiment] = experiment


@contextmanager
def served_at(address: str) -> Iterator[None]:
    """Have links lead to this address, also those of other commands in the workspace."""
    SERVED_NOW.parent.mkdir(exist_ok=True)
    SERVED_NOW.write_text(address, encoding="utf-8")
    try:
        yield
    finally:
        SERVED_NOW.unlink(missing_ok=True)


def address_of(settings: Tracking) -> str:
    """Return the address of the experiment's runs; of all experiments, if its ID is not known."""
    server = without_user(settings.uri).rstrip("/") if settings.is_server else _served()
    experiment = _experiments.get((settings.uri, settings.experiment), "")
    if settings.file is not None:
        experiment = _experiment_in(home() / settings.file, settings.experiment)
    return f"{server}/{runs_page(experiment)}"


def _served() -> str:
    try:
        return (home() / SERVED_NOW).read_text(encoding="utf-8").strip()
    except OSError:
        return SERVED


def _experiment_in(database: Path, name: str) -> str:
    """Return the ID of an experiment, from the file itself: MLflow takes seconds to load. Empty if there is none."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as store:
            found = store.execute("select experiment_id from experiments where name = ?", (name,)).fetchone()
    except sqlite3.Error:  # no such file, or without tables yet
        return ""
    return str(found[0]) if found else ""
