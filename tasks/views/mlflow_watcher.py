"""The events of one run, logged to its MLflow run."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.views.mlflow_metrics import Known, metrics_of
from tasks.views.system_metrics import SystemMetrics
from velocitune_core.config import without_credentials
from velocitune_core.train import events
from velocitune_core.train.outcome import read_outcome
from velocitune_core.train.timeline import timeline

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)
BATCH = 1000  # metrics per call, MLflow's limit
OVERFITTED_TAG = "velocitune.overfitted"  # the domains, each with the step of the evaluation that found it first
LIVE_SECONDS = 60  # an event that is older comes from an earlier start


class RunWatcher:
    """Logs the events of a run to its MLflow run, in batches.

    Args:
        find: returns a client and the ID of the MLflow run; no client if MLflow cannot be reached. It is called at the
            first event, or at the first flush if the run has ended before any event, and again when an attempt
            abandons steps whose events were passed.
        folder: of the run, with all its events so far and how it ended.
        known: returns what is known of the run before it starts.
        ended: is called with the ID of the MLflow run, the status that it ended in, and whether MLflow has taken all
            its events and its end.
    """

    def __init__(
        self,
        find: Callable[[], tuple[MlflowClient | None, str]],
        folder: Path | None = None,
        known: Callable[[], Known] = Known,
        ended: Callable[[str, str, bool], None] = lambda run_id, status, complete: None,
    ) -> None:
        self._look_up, self._folder, self._look_up_known, self._report_end = find, folder, known, ended
        self._find: Callable[[], tuple[MlflowClient | None, str]] | None = find
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._known = Known()
        self._buffer: list[Metric] = []
        self._precision: str | None = None  # until it is logged
        self._overfitted: dict[str, int] = {}  # domain → step
        self._tagged: dict[str, int] = {}  # those of the tag
        self._finished = False
        self._highest_step = -1  # of the metrics passed
        self._ended: int | None = None  # time of the last event, in milliseconds since 1970
        self._system: SystemMetrics | None = SystemMetrics()  # until it cannot be read

    @property
    def run_id(self) -> str:
        """The ID of the MLflow run; empty if MLflow cannot be reached."""
        self._connect()
        return self._run_id

    def __call__(self, event: events.Event) -> None:
        self._connect()
        if self._client is None:
            return
        if isinstance(event, events.Started):
            self._start(event)
        self._add(event)
        self._finished = isinstance(event, events.Finished)
        self._ended = round(event.time * 1000)

    def _start(self, event: events.Started) -> None:
        """Begin an attempt: if it abandons steps that were passed, continue in the MLflow run without them."""
        if self._highest_step > (-1 if event.resumed_from is None else event.resumed_from):
            self._find = self._look_up
            self._connect()
            self._buffer.clear()
            self._highest_step = -1
            self._overfitted, self._tagged = {}, {}
            for each in timeline(self._logged()):
                self._add(each)
        self._precision = event.precision

    def _logged(self) -> Iterable[events.Event]:
        return () if self._folder is None else events.read_events(self._folder / "events.jsonl")

    def _add(self, event: events.Event) -> None:
        if isinstance(event, events.Overfitted):
            self._overfitted |= dict.fromkeys(event.domains, event.step)
        found = list(metrics_of(event, self._known))
        self._log(found, round(event.time * 1000), event.step)
        self._highest_step = max(self._highest_step, event.step) if found else self._highest_step

    def _log(self, found: Iterable[tuple[str, float]], milliseconds: int, step: int) -> None:
        from mlflow.entities import Metric

        self._buffer += [Metric(key, value, milliseconds, step) for key, value in found]

    def flush(self) -> None:
        self._connect()
        if self._client is None:
            return
        self._log_system()
        try:
            if self._precision is not None:
                self._client.log_param(self.run_id, "precision", self._precision)
                self._precision = None
            if self._overfitted != self._tagged:
                named = ", ".join(f"{name} (step {step})" for name, step in self._overfitted.items())
                self._client.set_tag(self.run_id, OVERFITTED_TAG, named)
                self._tagged = dict(self._overfitted)
            while self._buffer:
                self._client.log_batch(self.run_id, metrics=self._buffer[:BATCH])
                del self._buffer[:BATCH]
        except Exception as error:
            reason = without_credentials(str(error))
            then = f"run {self.run_id} has the rest when its stage is run again"
            logger.warning("MLflow cannot be reached: %s; %s", reason, then)
            self._client = None

    def _log_system(self) -> None:
        """Log how the machine is used while the run trains; no longer once that cannot be read."""
        now = round(time.time() * 1000)
        if self._system is None or self._ended is None or now - self._ended >= LIVE_SECONDS * 1000:
            return
        try:
            self._log(self._system.due(), now, max(self._highest_step, 0))
        except Exception as error:  # whatever a monitor raises
            logger.warning("MLflow shows no more use of the machine in run %s: %s", self.run_id, error)
            self._system = None

    def close(self) -> None:
        if self._find is not None:  # the run was refused before it started
            return
        self.flush()
        status, taken = self._status(), False
        try:
            if self._client is not None:
                self._client.set_terminated(self.run_id, status, self._ended)
                taken = True
        except Exception as error:
            reason = without_credentials(str(error))
            logger.warning("MLflow did not take the end of run %s: %s", self.run_id, reason)
        self._report_end(self.run_id, status, taken)

    def _status(self) -> str:
        """Return MLflow's name for the end of the run: it was stopped by whoever started it, or it failed itself."""
        if self._finished:
            return "FINISHED"
        outcome = None if self._folder is None else read_outcome(self._folder)
        if outcome is not None:
            return {"finished": "FINISHED", "stopped": "KILLED"}.get(outcome.ended, "FAILED")
        error = sys.exception()  # that the launcher ends by; signals raise what is no `Exception`
        return "FAILED" if error is None or isinstance(error, Exception) else "KILLED"

    def _connect(self) -> None:
        if self._find is not None:
            find, self._find = self._find, None
            self._client, self._run_id = find()
            if self._client is not None:
                self._known = self._look_up_known()
