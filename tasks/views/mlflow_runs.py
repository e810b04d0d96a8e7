"""MLflow as a view of the event files: one parent run per configuration, a child run for every run of the program.

Each metric carries the time of its event, and the store keeps one row per (key, time, step, value). So a whole event
file can be logged again at any time: what a server has missed is added, and nothing appears twice. A store cannot give
up single values: when a resume abandons steps that it holds, the child run is deleted and another takes its place.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.views.mlflow_watcher import BATCH, RunWatcher
from velocitune_core.config import Params, without_credentials
from velocitune_core.train import events
from velocitune_core.train.timeline import last_abandoning_attempt

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)
_connecting = threading.Lock()  # or each of several parallel proxies would create the store and the parent run
PARAMS_BATCH = 100  # parameters per call, MLflow's limit
PARENT_TAG, CONFIG_TAG, JOB_TAG = "mlflow.parentRunId", "velocitune.config", "velocitune.job"
STARTED_TAG = "velocitune.started"  # first start of the run: one that starts over is another child run
TIMELINE_TAG = "velocitune.abandoned_by"  # the last attempt that abandoned steps of earlier ones; 0 if none did


class Tracker:
    """The parent run of a configuration. If MLflow cannot be reached, one warning is logged and methods do nothing."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._parent = ""
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

        def logged() -> Iterable[events.Event]:
            return events.read_events(folder / "events.jsonl")

        def find() -> tuple[MlflowClient | None, str]:
            run_id = ""
            try:
                if self._client is not None:
                    same = {PARENT_TAG: self._parent, JOB_TAG: folder.name, STARTED_TAG: _started(folder)}
                    timeline_tag = {TIMELINE_TAG: str(last_abandoning_attempt(logged()))}
                    run_id = self._child_of(same, timeline_tag, name, {"velocitune.name": name, **(tags or {})})
            except Exception as error:
                self._disconnect(error)
            return self._client if run_id else None, run_id

        return RunWatcher(find, logged)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or everything in a folder, to the parent run."""
        try:
            if self._client is not None and path.is_dir():
                self._client.log_artifacts(self._parent, str(path), folder or path.name)
            elif self._client is not None:
                self._client.log_artifact(self._parent, str(path), folder)
        except Exception as error:
            self._disconnect(error)

    def log_figure(self, figure: Figure, file: str) -> None:
        """Log a figure to the parent run, as the artifact `file`."""
        try:
            if self._client is not None:
                self._client.log_figure(self._parent, figure, file)
        except Exception as error:
            self._disconnect(error)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log final metrics to the parent run."""
        try:
            if self._client is not None:
                from mlflow.entities import Metric

                now = round(time.time() * 1000)
                logged = [Metric(name, value, now, 0) for name, value in metrics.items()]
                for start in range(0, len(logged), BATCH):
                    self._client.log_batch(self._parent, metrics=logged[start : start + BATCH])
        except Exception as error:
            self._disconnect(error)

    def finish(self) -> None:
        """Mark the parent run as finished, and tag it with DVC's hashes of the data."""
        try:
            if self._client is not None:
                with _optional("DVC's hashes"):
                    for name, value in _dvc_hashes().items():
                        self._client.set_tag(self._parent, name, value)
                self._client.set_terminated(self._parent, "FINISHED")
        except Exception as error:
            self._disconnect(error)

    def _connect(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is gone must not delay a stage
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        settings = self._params.tracking
        self._client = MlflowClient(settings.uri)
        experiment = self._client.get_experiment_by_name(settings.experiment)
        if experiment is None:
            place = Path("mlartifacts").absolute().as_uri() if settings.uri.startswith("sqlite") else None
            self._experiment = self._client.create_experiment(settings.experiment, place)
        else:
            self._experiment = experiment.experiment_id
        config = json.dumps(self._params.recipe(), sort_keys=True)  # another way of running is the same run
        digest = sha256(config.encode()).hexdigest()[:16]
        name = f"{self._params.strategy.name}-{digest[:6]}"
        self._parent = self._find_or_create(f"{CONFIG_TAG}` = '{digest}'", name, {CONFIG_TAG: digest, **_git_tags()})
        if not self._client.get_run(self._parent).data.params:
            with _optional("the settings"):
                self._log_config()

    def _log_config(self) -> None:
        from mlflow.entities import Param

        assert self._client is not None
        tree = self._params.shown()
        flat = [Param(key, str(value)) for key, value in flatten(tree, ".")]
        for start in range(0, len(flat), PARAMS_BATCH):
            self._client.log_batch(self._parent, params=flat[start : start + PARAMS_BATCH])
        self._client.log_text(self._parent, yaml.safe_dump(tree, sort_keys=False), "config.yaml")

    def _find_or_create(self, condition: str, name: str, tags: Mapping[str, str]) -> str:
        assert self._client is not None
        found: list[Run] = self._client.search_runs([self._experiment], f"tags.`{condition}", max_results=1)
        if found:
            return found[0].info.run_id
        return self._client.create_run(self._experiment, tags=dict(tags), run_name=name).info.run_id

    def _child_of(
        self, same: Mapping[str, str], timeline_tag: Mapping[str, str], name: str, tags: Mapping[str, str]
    ) -> str:
        """Return the ID of the child run with these tags; delete one that holds values of abandoned steps."""
        assert self._client is not None
        condition = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in same.items())
        for run in self._client.search_runs([self._experiment], condition):
            if timeline_tag.items() <= run.data.tags.items():
                return run.info.run_id
            self._client.delete_run(run.info.run_id)
        return self._client.create_run(
            self._experiment, tags={**same, **timeline_tag, **tags}, run_name=name
        ).info.run_id

    def _disconnect(self, error: Exception) -> None:
        if self._client is not None or not self._parent:
            logger.warning(
                "MLflow (%s) cannot be reached; what it misses is logged later: %s",
                without_credentials(self._params.tracking.uri),
                without_credentials(str(error)),
            )
        self._client = None


@contextmanager
def _optional(what: str) -> Iterator[None]:
    """Leave out what MLflow refuses, or what cannot be found out, instead of giving the run up.

    A store that is out of reach shows at the next call.
    """
    try:
        yield
    except Exception as error:
        logger.warning("MLflow has not all of %s: %s", what, without_credentials(str(error)))


def flatten(tree: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, each under the keys that lead to it, joined by the separator."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value


def _started(folder: Path) -> str:
    """Return when the attempt in a run folder was first started, as its code.json has it."""
    try:
        return repr(float(json.loads((folder / "code.json").read_text(encoding="utf-8"))["started"]))
    except (OSError, ValueError, TypeError, KeyError):
        return "unknown"


def _git_tags() -> dict[str, str]:
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:  # no such program
        return {}
    return {"mlflow.source.git.commit": commit.stdout.strip()} if commit.returncode == 0 else {}


def _dvc_hashes() -> dict[str, str]:
    """Return the hash of every output in the lock files of DVC, by the name `dvc.<path>`."""
    tags = {}
    for lock in (Path("inputs/corpus/dvc.lock"), Path("inputs/base/dvc.lock"), Path("dvc.lock")):
        stages = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
        for stage in stages.values():
            tags |= {f"dvc.{out['path']}": json.dumps(out.get("md5")).strip('"') for out in stage.get("outs", [])}
    return tags
