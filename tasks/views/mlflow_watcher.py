"""The events of one run, logged to its MLflow run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from velocitune_core.config import without_credentials
from velocitune_core.train import events
from velocitune_core.train.timeline import timeline

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)
BATCH = 1000  # metrics per call, MLflow's limit


class RunWatcher:
    """Logs the events of a run to its MLflow run, in batches.

    Args:
        find: returns a client and the ID of the MLflow run; no client if MLflow cannot be reached. It is called at the
            first event, or at the first flush if the run has ended before any event, and again when an attempt
            abandons steps whose events were passed.
        logged: returns all events of the run so far.
    """

    def __init__(
        self,
        find: Callable[[], tuple[MlflowClient | None, str]],
        logged: Callable[[], Iterable[events.Event]] = tuple,
    ) -> None:
        self._look_up, self._logged = find, logged
        self._find: Callable[[], tuple[MlflowClient | None, str]] | None = find
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._buffer: list[Metric] = []
        self._precision: str | None = None  # until it is logged
        self._finished = False
        self._highest_step = -1  # of the metrics passed
        self._ended: int | None = None  # time of the last event, in milliseconds since 1970

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
            for each in timeline(self._logged()):
                self._add(each)
        self._precision = event.precision

    def _add(self, event: events.Event) -> None:
        from mlflow.entities import Metric

        found = list(metrics_of(event))
        self._buffer += [Metric(key, value, round(event.time * 1000), event.step) for key, value in found]
        self._highest_step = max(self._highest_step, event.step) if found else self._highest_step

    def flush(self) -> None:
        self._connect()
        if self._client is None:
            return
        try:
            if self._precision is not None:
                self._client.log_param(self.run_id, "precision", self._precision)
                self._precision = None
            while self._buffer:
                self._client.log_batch(self.run_id, metrics=self._buffer[:BATCH])
                del self._buffer[:BATCH]
        except Exception as error:
            reason = without_credentials(str(error))
            logger.warning("MLflow cannot be reached; what run %s misses is logged later: %s", self.run_id, reason)
            self._client = None

    def close(self) -> None:
        if self._find is not None:  # the run was refused before it started
            return
        self.flush()
        try:
            if self._client is not None:
                status = "FINISHED" if self._finished else "FAILED"
                self._client.set_terminated(self.run_id, status, self._ended)
        except Exception as error:
            reason = without_credentials(str(error))
            logger.warning("MLflow did not take the end of run %s: %s", self.run_id, reason)

    def _connect(self) -> None:
        if self._find is not None:
            find, self._find = self._find, None
            self._client, self._run_id = find()


def metrics_of(event: events.Event) -> Iterator[tuple[str, float]]:
    """Yield the metrics of an event by name; MLflow groups names like `weight/code` into a section of charts."""
    match event:
        case events.Stepped():
            yield "train/loss", event.loss
            yield "train/learning_rate", event.learning_rate
            yield "train/gradient_norm", event.gradient_norm
            yield "train/tokens_per_second", event.tokens_per_second
            yield from _per_domain("tokens", event.domain_tokens)
            yield from _per_domain("epochs", event.domain_epochs)
        case events.Evaluated():
            yield from _per_domain("loss", event.losses)
        case events.Reweighted():
            yield from _per_domain("weight", event.weights)
            yield from _per_domain("velocity", event.velocity or {})


def _per_domain(section: str, values: Mapping[str, float]) -> Iterable[tuple[str, float]]:
    return ((f"{section}/{domain}", float(value)) for domain, value in values.items())
