"""`make serve` that is stopped or killed while a deployment trains: no flow run is left unfinished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from databases import copy_database
from mlflow import MlflowClient
from servers import PROJECT, environment, free_port
from tiny import job
from trainings import wait_for

from tasks.views.served_runs import request

pytestmark = pytest.mark.slow

# The shape of flows/pipeline.py: overrides, a stage as a flow of its own, a training that MLflow follows.
FLOW = """
from pathlib import Path
from prefect import flow, task
from tasks.runs.launch import run_training
from tasks.runs.run_folder import run_folder
from tasks.views.mlflow_runs import Tracker
from tasks.workspace.lock import exclusive
from tasks.workspace.params_file import override_params, read_params
from velocitune_core.config import Resources
from velocitune_core.train.job import TrainJob

@task
def train_model():
    job = TrainJob.model_validate_json(Path("job.json").read_text(), strict=False)
    run_training(job, Resources(threads=1), [Tracker(read_params()).child(job.name, run_folder(job))])

@flow(flow_run_name="train")
def train():
    train_model()

@flow(name="velocitune")
def velocitune(goal: str = "report"):
    with exclusive():
        override_params({"training.seed": 2})
        train()
"""
ENDLESS = {"total_steps": 10**6, "evaluation__every_steps": 10**6, "execution__checkpoint_every_steps": 10**6}


@dataclass(frozen=True)
class Serving:
    """A workspace, and the ports of its servers."""

    folder: Path
    ports: tuple[int, int]

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}/api"

    def start(self) -> subprocess.Popen[str]:
        prefect, mlflow = map(str, self.ports)
        command = ["tasks.views.serve", "--prefect-port", prefect, "--mlflow-port", mlflow]
        said = self.folder / "serve.log"
        with said.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.folder,
                env=environment(self.folder, PWD=str(self.folder)),
                stdout=log,
                stderr=log,
                text=True,
            )
        starts = said.read_text().count("Start a run, in ") + 1
        wait_for(lambda: said.read_text().count("Start a run, in ") == starts or process.poll() is not None, 200)
        assert process.poll() is None, said.read_text()
        return process

    def request(self, method: str, path: str, **content: Any) -> Any:
        return request(method, f"{self.api}/{path}", **content)

    def run(self, deployment: str) -> str:
        """Start a run of a deployment; return its ID."""
        found = self.request("GET", f"deployments/name/velocitune/{deployment}")["id"]
        return self.request("POST", f"deployments/{found}/create_flow_run", state={"type": "SCHEDULED"})["id"]

    def states(self) -> dict[str, str]:
        """Return the state of every flow run by its ID, of a stage by its name, of tasks as `task`."""
        runs = self.request("POST", "flow_runs/filter")
        tasks = self.request("POST", "task_runs/filter")
        of_runs = {each["name"] if each["parent_task_run_id"] else each["id"]: each["state_type"] for each in runs}
        return of_runs | {each["name"].partition("-")[0]: each["state_type"] for each in tasks}

    def steps(self) -> int:
        """Return how often the training has said how far it is."""
        files = list(self.folder.glob("runs/*/events.jsonl"))
        return files[0].read_text().count('"event":"step"') if files else 0

    def processes(self) -> list[psutil.Process]:
        """Return all that was started for this folder, whatever its parent is by now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                home = process.environ().get("PREFECT_HOME")
                if home == str(self.folder / ".prefect-home") and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def killed(self, *modules: str) -> None:
        """Kill the processes of some modules."""
        killed = [each for each in self.processes() if set(modules) & set(each.cmdline())]
        assert len(killed) == len(modules)
        for each in killed:
            each.kill()


@pytest.fixture
def serving(tiny_inputs: Path, tmp_path: Path, prefect_database: Path, mlflow_database: Path) -> Iterator[Serving]:
    for name in ("prefect.toml", "prefect.yaml"):
        shutil.copyfile(PROJECT / name, tmp_path / name)
    shutil.copyfile(PROJECT / "tests/miniature.yaml", tmp_path / "params.yaml")
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/pipeline.py").write_text(FLOW)
    (tmp_path / "job.json").write_text(json.dumps(job(tiny_inputs, tmp_path / "unused", **ENDLESS)))
    copy_database(prefect_database, tmp_path / ".prefect-home/prefect.db")
    copy_database(mlflow_database, tmp_path / "mlflow.db")
    made = Serving(tmp_path, (free_port(), free_port()))
    yield made
    for process in made.processes():
        with suppress(psutil.Error):
            process.kill()


def test_runs_save_and_end_with_the_servers_and_dead_ones_are_ended(serving: Serving) -> None:
    settings = (serving.folder / "params.yaml").read_bytes()

    process = serving.start()
    first, second = serving.run("local"), serving.run("compare")
    wait_for(serving.steps, 120)
    assert serving.states() == {first: "RUNNING", second: "SCHEDULED", "train": "RUNNING", "train_model": "RUNNING"}
    assert b"seed: 2" in (serving.folder / "params.yaml").read_bytes()
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    said = (serving.folder / "serve.log").read_text()
    assert "stopping the flow run, which saves a checkpoint: at most 340 s" in said and "Ctrl-C again kills" in said
    assert "1 run will begin when the servers are started again" in said
    assert serving.processes() == []
    (run,) = serving.folder.glob("runs/*")
    assert json.loads((run / "outcome.json").read_text())["ended"] == "stopped" and list(run.glob("checkpoints/step-*"))
    assert (serving.folder / "params.yaml").read_bytes() == settings
    assert mlflow_statuses(serving.folder) == {"KILLED"}

    steps, process = serving.steps(), serving.start()  # the second run begins, since it waited
    assert serving.states()[first] == "CANCELLED"
    wait_for(lambda: serving.steps() > steps, 120)
    assert serving.states()[second] == "RUNNING"
    serving.killed("tasks.views.serve", "prefect.engine", "worker")
    process.wait()

    process = serving.start()  # on the same ports
    said = (serving.folder / "serve.log").read_text()
    assert "an earlier start was killed: stopping 2 processes that it left" in said
    assert said.count("was running, and its process is gone: ended") == 1
    states = serving.states()
    assert (states.pop(first), states.pop(second)) == ("CANCELLED", "CRASHED")
    assert set(states.values()) <= {"CRASHED", "CANCELLED", "FAILED"}
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(120) == 0 and serving.processes() == []


def mlflow_statuses(folder: Path) -> set[str]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return {run.info.status for each in client.search_experiments() for run in client.search_runs([each.experiment_id])}
