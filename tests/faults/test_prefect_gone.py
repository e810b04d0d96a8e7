"""A flow that is cancelled while its training runs, and a Prefect server that is killed under a flow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect_databases import copy_database
from servers import PROJECT, environment, free_port, kill_group, running
from tiny import job
from trainings import wait_for

from velocitune_core.contracts import TrainResult
from velocitune_core.train.events import Started, read_events

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

    def request(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Call Prefect's REST API: its command line would import Prefect anew each time."""
        answer = httpx.request(method, f"{self.api}/{path}", json=content or None, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def deploy(self, flow: str) -> str:
        """Make a deployment of `flow.py` for a worker of the pool `local`; return its id."""
        self.request("POST", "work_pools/", name="local", type="process")
        pull = {"prefect.deployments.steps.set_working_directory": {"directory": str(self.folder)}}
        deployment = self.request(
            "POST",
            "deployments/",
            name="local",
            flow_id=self.request("POST", "flows/", name=flow)["id"],
            entrypoint=f"flow.py:{flow}",
            pull_steps=[pull],
            work_pool_name="local",
        )
        return deployment["id"]

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
    """A folder with two jobs and a flow that trains them, and a Prefect server."""
    folder = tmp_path_factory.mktemp("prefect")
    (folder / "prefect.toml").write_text((PROJECT / "prefect.toml").read_text())
    (folder / "flow.py").write_text(FLOW)
    for name, steps in {"endless": 10**6, "short": 500}.items():
        changes = {**FEW_EVENTS, "execution__checkpoint_every_steps": 10**6, "total_steps": steps, "name": name}
        (folder / f"{name}.json").write_text(json.dumps(job(tiny_inputs, folder / "unused", **changes)))
    copy_database(prefect_database, folder / ".prefect-home/prefect.db")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(folder, *command, health=f"{api}/health") as server:
        yield Workspace(folder, server, api)


def test_a_cancelled_flow_leaves_no_orphan_and_starts_nothing_again(workspace: Workspace) -> None:
    deployment = workspace.deploy("trainings")
    worker = ["prefect", "worker", "start", "--pool", "local", "--type", "process"]
    often = {"PREFECT_WORKER_QUERY_SECONDS": "1"}  # the run is looked for when the worker has just started
    with running(workspace.folder, *worker, PREFECT_API_URL=workspace.api, **often):
        parameters = {"name": "endless"}
        run = workspace.request("POST", f"deployments/{deployment}/create_flow_run", parameters=parameters)["id"]
        wait_for(lambda: workspace.trains("endless"), 240)
        assert len(workspace.training_processes()) == 1
        workspace.request("POST", f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
        wait_for(lambda: not workspace.training_processes(), 120)
        wait_for(lambda: workspace.request("GET", f"flow_runs/{run}")["state_type"] == "CANCELLED", 120)
        assert workspace.training_processes() == []
    folder = workspace.run_folder("endless")
    started = [event for event in read_events(folder / "events.jsonl") if isinstance(event, Started)]
    assert len(started) == 1  # stopped and saved, and not retried
    assert len(list((folder / "checkpoints").glob("step-*"))) == 1
    assert "stopped after step" in (folder / "log.txt").read_text()


def test_a_training_outlives_the_prefect_server(workspace: Workspace) -> None:
    """Last in this file: it kills the server. The flow run has nobody left to tell its end to; the training has."""
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
