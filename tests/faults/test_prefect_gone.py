"""A Prefect server that is killed under a flow. A flow that is cancelled: `.ci/cancel_a_deployment.py`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from forked import ForkedRun
from prefect_databases import prefect_server
from servers import PROJECT, environment, kill_group
from tiny import job
from trainings import wait_for

from velocitune_core.contracts import TrainResult

pytestmark = pytest.mark.slow

# The shape of flows/proxies.py: trainings in tasks of their own, which are retried, in threads.
FLOW = """
from pathlib import Path
from prefect import flow, task
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner
from tasks.runs.launch import may_be_retried, run_training
from tasks.views.prefect_progress import PrefectWatcher
from velocitune_core.config import Resources
from velocitune_core.train.job import TrainJob

@task(retries=2, retry_delay_seconds=0, retry_condition_fn=may_be_retried)
def train(name):
    job = TrainJob.model_validate_json(Path(f"{name}.json").read_text(), strict=False)
    run_training(job, Resources(threads=1), [PrefectWatcher(name)])

@flow
def trainings(name: str):
    with ThreadPoolTaskRunner(max_workers=1) as runner:
        wait(runner.map(train, {"name": [name]}))

if __name__ == "__main__":
    trainings("short")
"""
FEW_EVENTS = {"execution__log_every_steps": 5, "evaluation__every_steps": 500}


@dataclass(frozen=True)
class Workspace:
    folder: Path
    server: subprocess.Popen[bytes]
    api: str

    def environment(self) -> dict[str, str]:
        return environment(self.folder, PREFECT_API_URL=self.api, PREFECT_CLIENT_MAX_RETRIES="0")

    def run_folder(self, name: str) -> Path:
        (found,) = self.folder.glob(f"runs/{name}-*")
        return found

    def trains(self, name: str) -> bool:
        """Whether a training has begun and told of steps."""
        files = list(self.folder.glob(f"runs/{name}-*/events.jsonl"))
        return bool(files) and '"event":"step"' in files[0].read_text()

    def processes(self, server: psutil.Process) -> set[int]:
        """Return the processes in this folder that a process has forked."""
        return {each.pid for each in server.children() if each.status() != psutil.STATUS_ZOMBIE and self.has(each)}

    def has(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.cwd() == str(self.folder)
        return False


@pytest.fixture(scope="module")
def workspace(
    tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory, prefect_database: Path
) -> Iterator[Workspace]:
    """A folder with a job and a flow that trains it, and a Prefect server."""
    folder = tmp_path_factory.mktemp("prefect")
    (folder / "prefect.toml").write_text((PROJECT / "prefect.toml").read_text())
    (folder / "flow.py").write_text(FLOW)
    changes = {**FEW_EVENTS, "execution__checkpoint_every_steps": 10**6, "total_steps": 200, "name": "short"}
    (folder / "short.json").write_text(json.dumps(job(tiny_inputs, folder / "unused", **changes)))
    with prefect_server(prefect_database, folder) as (server, api):
        yield Workspace(folder, server, api)


def test_a_training_outlives_the_prefect_server(workspace: Workspace) -> None:
    """The flow run cannot record its end anywhere; the training can."""
    with contextlib.chdir(workspace.folder):
        flow = ForkedRun(["--watched", "flow"], environment=workspace.environment(), program="forked_flow")
    forks = psutil.Process(flow.pid).parent()
    assert forks is not None
    try:
        wait_for(lambda: workspace.trains("short"), 120, every_seconds=0.01)
        (training,) = workspace.processes(forks) - {flow.pid}
        os.kill(training, signal.SIGSTOP)  # however slow the kill is
        assert not (workspace.run_folder("short") / "result.json").exists()
        kill_group(workspace.server)
        os.kill(training, signal.SIGCONT)
        _, said = flow.communicate(timeout=400)
    finally:
        flow.kill()
    result = TrainResult.read(workspace.run_folder("short") / "result.json")
    assert (result.steps, result.resumed) == (200, 0)
    assert "Prefect did not take the progress of short" in said
    assert workspace.processes(forks) <= {flow.pid}
