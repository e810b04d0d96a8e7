"""A Prefect server that is killed under a flow. A flow that is cancelled: `.ci/cancel_a_deployment.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from prefect_databases import copy_database
from servers import PROJECT, environment, free_port, kill_group, running
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

    def training_processes(self) -> list[psutil.Process]:
        """Training programs of this workspace, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd", "status"]):
            line = process.info["cmdline"] or []
            mine = process.info["cwd"] == str(self.folder) and process.info["status"] != psutil.STATUS_ZOMBIE
            if mine and "velocitune_core.train" in line:
                found.append(process)
        return found


@pytest.fixture(scope="module")
def workspace(
    tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory, prefect_database: Path
) -> Iterator[Workspace]:
    """A folder with a job and a flow that trains it, and a Prefect server."""
    folder = tmp_path_factory.mktemp("prefect")
    (folder / "prefect.toml").write_text((PROJECT / "prefect.toml").read_text())
    (folder / "flow.py").write_text(FLOW)
    changes = {**FEW_EVENTS, "execution__checkpoint_every_steps": 10**6, "total_steps": 500, "name": "short"}
    (folder / "short.json").write_text(json.dumps(job(tiny_inputs, folder / "unused", **changes)))
    copy_database(prefect_database, folder / ".prefect-home/prefect.db")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(folder, *command, health=f"{api}/health") as server:
        yield Workspace(folder, server, api)


def test_a_training_outlives_the_prefect_server(workspace: Workspace) -> None:
    """The flow run cannot record its end anywhere; the training can."""
    command = [sys.executable, "flow.py"]
    flow = subprocess.Popen(
        command, cwd=workspace.folder, env=workspace.environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: workspace.trains("short"), 120, every_seconds=0.01)
        (training,) = workspace.training_processes()
        training.suspend()  # however slow the kill is
        assert not (workspace.run_folder("short") / "result.json").exists()
        kill_group(workspace.server)
        training.resume()
        _, said = flow.communicate(timeout=400)
    finally:
        flow.kill()
    result = TrainResult.read(workspace.run_folder("short") / "result.json")
    assert (result.steps, result.resumed) == (500, 0)
    assert "Prefect did not take the progress of short" in said
    assert workspace.training_processes() == []
