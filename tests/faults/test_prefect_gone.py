"""A flow that is cancelled while its training runs, and a Prefect server that is killed under a flow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from servers import PROJECT, environment, free_port, kill_group, running
from tiny import job
from trainings import wait_for

from velocitune_core.contracts import TrainResult
from velocitune_core.train.events import Started, read_events

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
CANCEL = """
import sys, uuid
from prefect import get_client
from prefect.states import Cancelling
with get_client(sync_client=True) as client:
    client.set_flow_run_state(uuid.UUID(sys.argv[1]), Cancelling())
"""
START = """
from prefect.deployments import run_deployment
print(run_deployment("trainings/local", parameters={"name": "endless"}, timeout=0).id)
"""
FEW_EVENTS = {"training__log_every_steps": 5, "evaluation__every_steps": 500}


@dataclass(frozen=True)
class Workspace:
    folder: Path
    server: subprocess.Popen[bytes]
    api: str

    def environment(self) -> dict[str, str]:
        return environment(self.folder, PREFECT_API_URL=self.api, PREFECT_CLIENT_MAX_RETRIES="0")

    def python(self, *arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

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
def workspace(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A folder with two jobs and a flow that trains them, and a Prefect server."""
    folder = tmp_path_factory.mktemp("prefect")
    (folder / "prefect.toml").write_text((PROJECT / "prefect.toml").read_text())
    (folder / "flow.py").write_text(FLOW)
    for name, steps in {"endless": 10**6, "short": 1500}.items():
        changes = {**FEW_EVENTS, "training__checkpoint_every_steps": 10**6, "total_steps": steps, "name": name}
        (folder / f"{name}.json").write_text(json.dumps(job(tiny_inputs, folder / "unused", **changes)))
    deployment = {"name": "local", "entrypoint": "flow.py:trainings", "work_pool": {"name": "local"}}
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"name": "x", "pull": pull, "deployments": [deployment]}))
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(folder, *command, health=f"{api}/health") as server:
        yield Workspace(folder, server, api)


def test_a_cancelled_flow_leaves_no_orphan_and_starts_nothing_again(workspace: Workspace) -> None:
    workspace.python("-m", "prefect", "--no-prompt", "work-pool", "create", "local", "--type", "process")
    workspace.python("-m", "prefect", "--no-prompt", "deploy", "--all")
    worker = ["prefect", "worker", "start", "--pool", "local", "--type", "process"]
    with running(workspace.folder, *worker, PREFECT_API_URL=workspace.api):
        run = workspace.python("-c", START)
        wait_for(lambda: workspace.trains("endless"), 240)
        assert len(workspace.training_processes()) == 1
        workspace.python("-c", CANCEL, run)
        wait_for(lambda: not workspace.training_processes(), 120)
        state = ["-m", "prefect", "flow-run", "inspect", run]
        wait_for(lambda: "CANCELLED" in workspace.python(*state), 120, every_seconds=1)
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
        wait_for(lambda: workspace.trains("short"), 120)
        assert not (workspace.run_folder("short") / "result.json").exists()
        kill_group(workspace.server)
        _, said = flow.communicate(timeout=400)
    finally:
        flow.kill()
    result = TrainResult.read(workspace.run_folder("short") / "result.json")
    assert (result.steps, result.resumed) == (1500, 0)
    assert "Prefect did not take the progress of short" in said
    assert workspace.training_processes() == []
