"""The progress of a run in Prefect's UI: percent done, and log lines of evaluations, warnings and where it resumes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from tasks.views.prefect_artifacts import GROUP
from tasks.views.weights_line import weights_text
from tasks.workspace.prefect_logging import UI_ONLY
from velocitune_core.train import events

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_UPDATES = 5.0
SECONDS_AFTER_FAILURE = 300.0  # Prefect retries for a minute if its server is gone, and no event is read meanwhile


class PrefectWatcher:
    """A progress artifact, updated every few seconds, and lines in the log of the flow run."""

    def __init__(self, name: str) -> None:
        self._name, self._since = name, time.time()
        self._start: Mapping[str, float] = {}  # domain weights at step 0
        self._weights = self._start  # now
        self._artifact: object = None
        self._total_steps = 0  # or rows of an evaluation; unknown before the run has started
        self._step = 0
        self._unit = "steps"
        self._next_update = 0.0
        self._failing = False

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Started):
            self._total_steps = event.total_steps
            self._log_resumption(event)
        elif isinstance(event, events.EvaluationStarted):
            self._total_steps, self._unit = event.rows, "sequences"
        elif isinstance(event, events.Reweighted):
            self._start, self._weights = self._start or event.weights, event.weights
        elif event.time >= self._since:  # or an earlier attempt logged it
            self._log(event)
        self._step = event.step

    def _log(self, event: events.Event) -> None:
        """Log what an evaluation found, its losses and the domains that are overfitted, and warnings."""
        if isinstance(event, events.Evaluated):
            self._log_losses(event)
        elif isinstance(event, events.Warned) and not event.of_model:
            logger.warning("%s: %s", self._name, event.message, extra=UI_ONLY)
        elif isinstance(event, events.Overfitted):
            for message in event.messages:
                logger.warning("%s: %s", self._name, message, extra=UI_ONLY)  # the bar has it on the terminal

    def _log_resumption(self, event: events.Started) -> None:
        if event.resumed_from is not None and event.time >= self._since:
            found = (self._name, event.resumed_from, event.total_steps)
            logger.info("%s: resuming from the checkpoint at step %d of %d", *found, extra=UI_ONLY)

    def _log_losses(self, event: events.Evaluated) -> None:
        """Log the losses of an evaluation, and the weights that it came under if they have moved: one line."""
        mean = sum(event.losses.values()) / len(event.losses)
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in event.losses.items())
        moved = f"; weights {weights_text(self._start, self._weights)}" if self._weights != self._start else ""
        line = f"{self._name}, step {event.step} of {self._total_steps}: mean loss {mean:.3f} ({losses}){moved}"
        logger.info(line, extra=UI_ONLY)

    def flush(self) -> None:
        if time.monotonic() >= self._next_update:
            self._update()

    def close(self) -> None:
        if not self._failing:
            self._update()

    def _update(self) -> None:
        if not self._total_steps:
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        percent = 100.0 * self._step / self._total_steps
        try:
            if self._artifact is None:
                key = f"{GROUP}-progress-{self._name}".lower().replace("_", "-")
                description = f"{self._name}: percent of {self._total_steps} {self._unit}"
                self._artifact = create_progress_artifact(percent, key=key, description=description)
            else:
                update_progress_artifact(self._artifact, progress=percent)  # pyrefly: ignore
            self._failing = False
        except Exception as error:  # whatever is wrong with Prefect's server, the run continues
            self._failing = True
            logger.warning("Prefect did not take the progress of %s: %s", self._name, error)
        self._next_update = time.monotonic() + (SECONDS_AFTER_FAILURE if self._failing else SECONDS_BETWEEN_UPDATES)
