"""The MLflow runs that this process has opened, so that none stays RUNNING when its command ends."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.workspace.command_end import CommandEnd, when_command_ends
from velocitune_core.config import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}  # MLflow's, by how the command ended


@dataclass(frozen=True)
class Opened:
    """An MLflow run that this process logs to."""

    client: MlflowClient
    run_id: str


class LeftOpen:
    """The MLflow runs that are open in this process; they are closed when its command ends."""

    def __init__(self) -> None:
        self._runs: dict[str, Opened] = {}
        self._experiments: set[str] = set()
        self._stopped = False  # a run was stopped on request, so the command did not fail by itself

    def is_first(self, experiment: str) -> bool:
        """Return whether this process has not used an experiment before."""
        first = experiment not in self._experiments
        self._experiments.add(experiment)
        return first

    def add(self, opened: Opened) -> bool:
        """Add a run to those that are open; return whether it was not one of them."""
        when_command_ends(self.close)
        new = opened.run_id not in self._runs
        self._runs[opened.run_id] = opened
        return new

    def holds(self, run_id: str) -> bool:
        """Return whether a run is open until the command ends."""
        return run_id in self._runs

    def ended(self, run_id: str, status: str, taken: bool = True) -> None:
        """Take out a run that has ended in a status of MLflow, unless MLflow has not taken its end."""
        if taken:
            self._runs.pop(run_id, None)
        self._stopped |= status == "KILLED"

    def forget(self, run_id: str) -> None:
        """Take out a run that was deleted, or closed because the run in its folder started over."""
        self._runs.pop(run_id, None)

    def close(self, end: CommandEnd) -> None:
        """Close all of them as the command ended."""
        status = "KILLED" if end == "failed" and self._stopped else STATUS[end]
        for opened in list(self._runs.values()):
            try:
                opened.client.set_terminated(opened.run_id, status)
            except Exception as error:  # the next command closes it
                logger.warning(
                    "MLflow did not take the end of run %s: %s", opened.run_id, without_credentials(str(error))
                )
        self._runs.clear()
        self._stopped = False


left_open = LeftOpen()
