"""The store of MLflow: where it lies, and what a move of the workspace or the kill of a process has left wrong in it.

`python -m tasks.views.mlflow_store` makes it ready to be served.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import psutil

from tasks.views.mlflow_links import remember_experiment
from tasks.workspace import paths
from tasks.workspace.home import home
from velocitune_core.config import Tracking, load_params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)
PROCESS_TAG = "velocitune.process"  # the process that logs a run: its host, its ID, and when it was started
PARENT_TAG = "mlflow.parentRunId"
ARTIFACTS = "mlartifacts"  # folder beside an SQLite store
_PLACES = (  # table, column of the key, column of the place
    ("experiments", "experiment_id", "artifact_location"),
    ("runs", "run_uuid", "artifact_uri"),
    ("logged_models", "model_id", "artifact_location"),
)


def open_store(settings: Tracking) -> tuple[MlflowClient, str]:
    """Return a client and the ID of the experiment, which is created if it is missing.

    A relative SQLite file is one of the repository, also in a temporary copy of it that DVC works in.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is gone must not delay a stage
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri, place = settings.uri, None
    if (named := settings.file) is not None:
        database = home() / named
        uri, place = f"sqlite:///{database}", (database.parent / ARTIFACTS).as_uri()
        follow_move(database, settings.experiment)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(settings.experiment)
    identity = client.create_experiment(settings.experiment, place) if experiment is None else experiment.experiment_id
    remember_experiment(settings, identity)
    return client, identity


def follow_move(database: Path, experiment: str) -> None:
    """Let the artifacts of an experiment be in the folder beside its SQLite store, if the store was moved or copied.

    MLflow has only absolute paths, and no call to change them. Artifacts that lie in the old place alone stay there.
    """
    here = (database.parent / ARTIFACTS).as_uri()
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=20)) as store, store:
            query = "select experiment_id, artifact_location from experiments where name = ?"
            found = store.execute(query, (experiment,)).fetchall()
            moved = [(number, old) for number, old in found if old and _has_moved(old, here, database.name)]
            for number, old in moved:
                for place in _PLACES:
                    _follow(store, *place, number, old, here)
    except sqlite3.Error as error:
        logger.warning("%s: artifacts are logged to their old place: %s", database, error)
        return
    for _, old in moved:
        logger.warning("%s was moved or copied: its artifacts are now in %s, no longer in %s", database, here, old)


def _has_moved(old: str, here: str, database: str) -> bool:
    """Whether a store lay beside a folder before: the folder is gone, or the original of a copy lies there."""
    if not old.startswith("file:") or not old.endswith(f"/{ARTIFACTS}") or old == here:
        return False
    return not _path(old).exists() or (_path(old).parent / database).exists()


def _follow(store: sqlite3.Connection, table: str, key: str, column: str, experiment: int, old: str, here: str) -> None:
    rows = store.execute(
        f"select {key}, {column} from {table} where experiment_id = ? and ({column} = ? or {column} like ? || '/%')",
        (experiment, old, old),
    )
    for identity, place in rows.fetchall():
        new = here + place[len(old) :]
        if place == old or _path(new).exists() or not _path(place).exists():
            store.execute(f"update {table} set {column} = ? where {key} = ?", (new, identity))


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def process_tag() -> str:
    """Return the tag of this process, which no other process has, on any host."""
    own = psutil.Process()
    return f"{socket.gethostname()} {own.pid} {own.create_time():.2f}"


def close_left_runs(client: MlflowClient, experiment: str) -> None:
    """Mark runs as KILLED whose process on this host was killed, with the time of their last sign of life as their end.

    That of a parent is the last one of its children.
    """
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if _is_gone(run.data.tags.get(PROCESS_TAG, "")):
            close_as_killed(client, run)


def close_as_killed(client: MlflowClient, run: Run) -> None:
    """Mark a run as KILLED, at the time of its last metric or that of its children."""
    same = f"tags.`{PARENT_TAG}` = '{run.info.run_id}'"
    children = client.search_runs([run.info.experiment_id], same)
    client.set_terminated(run.info.run_id, "KILLED", max(_last_seen(client, each) for each in (run, *children)))


def _last_seen(client: MlflowClient, run: Run) -> int:
    """Return when a run ended, or else when its last metric was logged, or else when it began."""
    if run.info.status != "RUNNING" and run.info.end_time:
        return run.info.end_time
    metrics = sorted(run.data.metrics, key=lambda name: name != "train/loss")[:1]
    times = [point.timestamp for name in metrics for point in client.get_metric_history(run.info.run_id, name)]
    return max(times, default=run.info.start_time)


def _is_gone(tag: str) -> bool:
    host, _, process = tag.partition(" ")
    if host != socket.gethostname():
        return False
    number, _, started = process.partition(" ")
    try:
        return abs(psutil.Process(int(number)).create_time() - float(started)) > 1.0
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError):
        return False


if __name__ == "__main__":
    close_left_runs(*open_store(load_params(paths.PARAMS).tracking))
    sys.exit()
