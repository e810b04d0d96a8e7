"""Real servers on loopback, each in a process group of its own, so that they can be killed whole."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainings import wait_for

SECONDS_TO_START = 240
PROJECT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(folder: Path, **changes: str) -> dict[str, str]:
    """Of a program in a workspace of its own: nothing of the developer's Prefect, no telemetry."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return inherited | {
        "PYTHONPATH": str(PROJECT),
        "PREFECT_HOME": str(folder / ".prefect-home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes of its own, for features that we do not use
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        **changes,
    }


@contextmanager
def running(
    folder: Path, *command: str, health: str | None = None, **changes: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m …` in `folder` until the end of the block; waits until `health` answers."""
    with (folder / f"{command[0]}-{command[1]}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment(folder, **changes),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        if health is not None:
            wait_for(lambda: _answers(health, process), SECONDS_TO_START)
        yield process
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a server and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"{process.args} ended with status {process.returncode}"
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False
