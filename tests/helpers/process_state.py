"""What one test could leave in its process for the next: of the system, and of our own modules."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)  # of commands; pytest-timeout and torch have others


@contextmanager
def restored() -> Iterator[None]:
    """Restore the environment, the working folder, the import path, the handlers of signals, and our own state.

    Modules that no test has imported stay so.
    """
    environment, folder, path = dict(os.environ), Path.cwd(), sys.path[:]
    handlers = [(number, signal.getsignal(number)) for number in STOP_SIGNALS]
    try:
        yield
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
        _restore_environment(environment)
        os.chdir(folder)
        sys.path[:] = path
        _forget_command()


def _restore_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _forget_command() -> None:
    """Forget what belongs to one command: open MLflow runs, what is to be done at its end, what it has warned of."""
    if (signals := sys.modules.get("tasks.workspace.signals")) is not None:
        signals.no_longer_watch()
    if (ends := sys.modules.get("tasks.workspace.command_end")) is not None:
        ends._actions.clear()
    if (opened := sys.modules.get("tasks.views.mlflow_open")) is not None:
        opened.left_open.__init__()
    if (warned := sys.modules.get("tasks.workspace.said_once")) is not None:
        warned._said.clear()
    if (bars := sys.modules.get("velocitune_core.train.progress_bar")) is not None:
        bars._notes_shown.clear()
    if (links := sys.modules.get("tasks.views.mlflow_links")) is not None:
        links._experiments.clear()
