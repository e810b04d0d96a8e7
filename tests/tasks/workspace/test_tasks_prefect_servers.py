"""The temporary Prefect server of a killed run is terminated by the next run, and that of a live run is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks.workspace.lock import exclusive

SERVED = """
import time
import tasks
from prefect.server.api.server import SubprocessASGIServer
server = SubprocessASGIServer()
server.start()
print(server.server_process.pid, flush=True)
time.sleep(600)
"""


def test_the_server_of_a_run_may_start_slowly() -> None:
    show = "import flows; from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS as seconds"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-c", f"{show}; print(seconds.value())"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert int(shown) == 300


@pytest.mark.slow
def test_the_server_of_a_killed_run_is_ended_by_the_next_one(workspace: Path) -> None:
    environment = {
        **os.environ,
        "PREFECT_HOME": str(workspace),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    with subprocess.Popen(
        [sys.executable, "-c", SERVED], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        server = psutil.Process(int(process.stdout.readline()))
        with exclusive():
            assert server.is_running(), "its run has not ended"
        process.kill()
    assert server.is_running()
    with exclusive():
        server.wait(20)
