"""MLflow as a view of the event files: one parent run per configuration, a child run for every run of the program.

Each metric carries the time of its event, and the store keeps one row per (key, time, step, value). So a whole event
file can be logged again at any time: what a server has missed is added, and nothing appears twice. A store cannot give
up single values: when a resume abandons steps that it holds, the child run is deleted and another takes its place.

A parent is RUNNING while a command works for it, and then has the status that the command ended in.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tasks.views import mlflow_described as described
from tasks.views.mlflow_metrics import Known, with_names_of_mlflow
from tasks.views.mlflow_names import flatten, joined, other_settings, parent_name, used_settings
from tasks.views.mlflow_open import Opened, left_open
from tasks.views.mlflow_store import PARENT_TAG, PROCESS_TAG, close_as_killed, close_left_runs, open_store, process_tag
from tasks.views.mlflow_watcher import BATCH, RunWatcher
from tasks.workspace.lock import is_held
from velocitune_core.config import Params, without_credentials
from velocitune_core.train import events
from velocitune_core.train.timeline import last_abandoning_attempt

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

logger = logging.getLogger(__name__)
_connecting = threading.Lock()  # or each of several parallel proxies would create the store and the parent run
PARAMS_BATCH = 100  # parameters per call, MLflow's limit
CONFIG_TAG, JOB_TAG = "velocitune.config", "velocitune.job"
STARTED_TAG = "velocitune.started"  # first start of the run: one that starts over is another child run
COMPLETE_TAG = "velocitune.events"  # size in bytes of a finished run's event file, once all of it is in the store
TIMELINE_TAG = "velocitune.abandoned_by"  # the last attempt that abandoned steps of earlier ones; 0 if none did


class Tracker:
    """The parent run of a pipeline's settings. If MLflow cannot be reached, one warning is logged, methods do nothing.

    Args:
        comparing: whether it is that of the comparison, which holds the runs of the stage `compare` alone.
    """

    def __init__(self, params: Params, comparing: bool = False) -> None:
        self._params, self._comparing = params, comparing
        self._client: MlflowClient | None = None
        self.experiment = ""  # its ID
        self.parent = ""  # ID of the parent run
        try:
            with _connecting:
                self._connect()
        except Exception as error:  # whatever it is: MLflow is only a view
            self._disconnect(error)

    @property
    def active(self) -> bool:
        return self._client is not None

    def child(self, name: str, folder: Path, tags: Mapping[str, str] | None = None) -> RunWatcher:
        """Return a watcher that logs to the child run of a run folder; an existing one is continued.

        It is looked up at the first event: only then does the folder hold the run that the events belong to.
        """

        def find() -> tuple[MlflowClient | None, str]:
            run_id = ""
            try:
                if self._client is not None:
                    run = self._child_of(folder, name, {"velocitune.name": name, **(tags or {})})
                    run_id = run.info.run_id
                    if _is_whole(run, folder):
                        return None, run_id
            except Exception as error:
                self._disconnect(error)
            return self._client if run_id else None, run_id

        def known() -> Known:
            job = described.job_in(folder)
            return Known() if job is None else described.known_of(job, self._params)

        def ended(run_id: str, status: str, complete: bool) -> None:
            left_open.ended(run_id, status, complete)
            if complete and status == "FINISHED":
                with self.reaching() as client:
                    if client is not None:
                        client.set_tag(run_id, COMPLETE_TAG, _size(folder))

        return RunWatcher(find, folder, known, ended)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or everything in a folder, to the parent run."""
        with self.reaching() as client:
            if client is not None and path.is_dir():
                client.log_artifacts(self.parent, str(path), folder or path.name)
            elif client is not None:
                client.log_artifact(self.parent, str(path), folder)

    def log_figure(self, figure: Figure, file: str) -> None:
        """Log a figure to the parent run, as the artifact `file`."""
        with self.reaching() as client:
            if client is not None:
                client.log_figure(self.parent, figure, file)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics to the parent run, final ones at step 0."""
        with self.reaching() as client:
            if client is not None:
                from mlflow.entities import Metric

                now = round(time.time() * 1000)
                logged = [Metric(name, value, now, step) for name, value in with_names_of_mlflow(metrics).items()]
                for start in range(0, len(logged), BATCH):
                    client.log_batch(self.parent, metrics=logged[start : start + BATCH])

    def finish(self) -> None:
        """Mark the parent run as finished, unless a command works for it: then it ends as that does, which may fail."""
        with self.reaching() as client:
            if client is not None and not left_open.holds(self.parent):
                client.set_terminated(self.parent, "FINISHED")

    @contextmanager
    def reaching(self) -> Iterator[MlflowClient | None]:
        """Yield the client, if MLflow can be reached; if it cannot any more, be without it from now on."""
        try:
            yield self._client
        except Exception as error:
            self._disconnect(error)

    def _connect(self) -> None:
        self._client, self.experiment = open_store(self._params.tracking)
        config = used_settings(self._params, self._comparing)  # another way of running is the same run
        digest = sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]
        found = self._client.search_runs([self.experiment], f"tags.`{CONFIG_TAG}` = '{digest}'", max_results=1)
        if is_held() and left_open.is_first(f"{self._client.tracking_uri} {self.experiment}"):
            close_left_runs(self._client, self.experiment)
        parent = found[0] if found else self._created(self._name(digest), {CONFIG_TAG: digest})
        self.parent = parent.info.run_id
        if is_held():  # not in a worker of Ray, which ends before the command
            self._begin(parent)
        if not parent.data.params:
            with optional("the settings"):
                self._log_config()
        if parent.inputs is None or not parent.inputs.dataset_inputs:
            with optional("the data sets"):
                self._log_inputs(self.parent, described.datasets_of_pipeline(self._params))

    def _name(self, digest: str) -> str:
        """Return a name for the parent of settings with this digest, other than that of the first parent like it."""
        assert self._client is not None
        name = parent_name(self._params, self._comparing)
        same = f"attributes.run_name = '{name}'"
        first = self._client.search_runs([self.experiment], same, order_by=["attributes.start_time"], max_results=1)
        if not first:
            return name
        return joined(name, other_settings(self._params, first[0].data.params, digest, self._comparing))

    def _begin(self, parent: Run) -> None:
        """Show that this command works for the parent run, until the command ends."""
        assert self._client is not None
        run_id, tag = parent.info.run_id, process_tag()
        if left_open.add(Opened(self._client, run_id)):
            if parent.data.tags.get(PROCESS_TAG) != tag:
                self._client.set_tag(run_id, PROCESS_TAG, tag)
            self._client.update_run(run_id, "RUNNING")

    def _log_config(self) -> None:
        assert self._client is not None
        tree = self._params.shown()
        self._log_params(self.parent, {key: str(value) for key, value in flatten(tree, ".")})
        self._client.log_text(self.parent, yaml.safe_dump(tree, sort_keys=False), "config.yaml")

    def _log_params(self, run_id: str, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        assert self._client is not None
        flat = [Param(key, value) for key, value in values.items()]
        for start in range(0, len(flat), PARAMS_BATCH):
            self._client.log_batch(run_id, params=flat[start : start + PARAMS_BATCH])

    def _created(self, name: str, tags: Mapping[str, str]) -> Run:
        assert self._client is not None
        tags = {**described.origin_tags(), PROCESS_TAG: process_tag(), **tags}
        return self._client.create_run(self.experiment, tags=tags, run_name=name)

    def _child_of(self, folder: Path, name: str, tags: Mapping[str, str]) -> Run:
        """Return the child run of a run folder; delete one that holds values of abandoned steps.

        One of an earlier run in the folder stays, and is closed if a kill has left it open.
        """
        assert self._client is not None
        abandoned = str(last_abandoning_attempt(events.read_events(folder / "events.jsonl")))
        same = {PARENT_TAG: self.parent, JOB_TAG: folder.name}
        own = {STARTED_TAG: _started(folder), TIMELINE_TAG: abandoned}
        condition = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in same.items())
        for run in self._client.search_runs([self.experiment], condition):
            if run.data.tags.get(STARTED_TAG) != own[STARTED_TAG]:
                if run.info.status == "RUNNING":
                    close_as_killed(self._client, run)
                    left_open.forget(run.info.run_id)
            elif run.data.tags.get(TIMELINE_TAG) == abandoned:
                self._continue(run, folder)
                return run
            else:
                self._client.delete_run(run.info.run_id)
                left_open.forget(run.info.run_id)
        return self._new_child(folder, name, {**same, **own, **tags})

    def _continue(self, run: Run, folder: Path) -> None:
        assert self._client is not None
        if (
            not _is_whole(run, folder) and not (folder / "result.json").exists()
        ):  # else its events are only logged again
            left_open.add(Opened(self._client, run.info.run_id))
            self._client.set_tag(run.info.run_id, PROCESS_TAG, process_tag())
            self._client.update_run(run.info.run_id, "RUNNING")

    def _new_child(self, folder: Path, name: str, tags: Mapping[str, str]) -> Run:
        assert self._client is not None
        job = described.job_in(folder)
        run = self._created(name if job is None else described.child_name(job, name, self._params), tags)
        run_id = run.info.run_id
        left_open.add(Opened(self._client, run_id))
        if job is not None:
            with optional("the settings of a run"):
                self._log_params(run_id, described.child_params(job))
                self._log_inputs(run_id, described.datasets_of(job, self._params))
        return run

    def _log_inputs(self, run_id: str, datasets: list[DatasetInput]) -> None:
        if self._client is not None and datasets:
            self._client.log_inputs(run_id, datasets)

    def _disconnect(self, error: Exception) -> None:
        if self._client is not None or not self.parent:
            logger.warning(
                "MLflow (%s) cannot be reached: %s; what it misses is logged when the stage is run again",
                without_credentials(self._params.tracking.uri),
                without_credentials(str(error)),
            )
        self._client = None


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Leave out what MLflow refuses, or what cannot be found out, instead of giving the run up.

    A store that is out of reach shows at the next call.
    """
    try:
        yield
    except Exception as error:
        logger.warning("MLflow has not all of %s: %s", what, without_credentials(str(error)))


def _is_whole(run: Run, folder: Path) -> bool:
    """Return whether a run is FINISHED, and its store has every event of the folder."""
    return run.info.status == "FINISHED" and run.data.tags.get(COMPLETE_TAG) == (_size(folder) or None)


def _size(folder: Path) -> str:
    file = folder / "events.jsonl"
    return str(file.stat().st_size) if file.exists() else ""


def _started(folder: Path) -> str:
    """Return when the attempt in a run folder was first started, as its code.json has it."""
    try:
        return repr(float(json.loads((folder / "code.json").read_text(encoding="utf-8"))["started"]))
    except (OSError, ValueError, TypeError, KeyError):
        return "unknown"
