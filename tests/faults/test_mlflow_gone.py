"""MLflow's server is killed while a training runs, and comes back."""

from __future__ import annotations

import logging
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from databases import copy_database
from mlflow import MlflowClient
from servers import free_port, kill_group, running
from tiny import job

from tasks.runs.launch import run_folder, run_training
from tasks.views.mlflow_links import runs_page
from tasks.views.mlflow_metrics import metrics_of
from tasks.views.mlflow_runs import PARENT_TAG, Tracker
from tasks.views.serve import QUIET
from velocitune_core.config import Resources, parse_params
from velocitune_core.train.events import Event, read_events
from velocitune_core.train.job import TrainJob

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "domains": {name: {"source": {"type": "jsonl", "path": f"{name}.jsonl"}} for name in ("code", "general")},
    "data": {"path": "data/raw"},
    "model": {"path": "models/mine"},
    "training": {"optimizer": {"learning_rate": 1e-3}},
}


class KillWhenTold:
    """Kills a server as soon as it has taken the first events of a training."""

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        self._server, self._told = server, 0

    def __call__(self, event: Event) -> None:
        self._told += bool(list(metrics_of(event)))

    def flush(self) -> None:
        if self._told:
            kill_group(self._server)

    def close(self) -> None:
        pass


@pytest.mark.usefixtures("forked_start")
def test_training_goes_on_without_mlflow_and_the_server_catches_up_without_duplicates(
    tiny_inputs: Path,
    tmp_path: Path,
    mlflow_database: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    copy_database(mlflow_database, tmp_path / "mlflow.db")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    login = address.replace("//", "//ann:pa55@")
    params = parse_params(SETTINGS | {"tracking": {"uri": login, "experiment": "faults"}})
    tiny = TrainJob.model_validate(job(tiny_inputs, tmp_path / "unused", total_steps=300), strict=False)

    def server() -> AbstractContextManager[subprocess.Popen[bytes]]:
        store = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./mlartifacts"]
        place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--uvicorn-opts", QUIET]
        return running(tmp_path, "mlflow", "server", *store, *place, health=f"{address}/health")

    def train(*others: KillWhenTold) -> str:
        child = Tracker(params).child("training", run_folder(tiny))
        with caplog.at_level(logging.WARNING, logger="tasks.views.mlflow_runs"):
            assert run_training(tiny, Resources(threads=1), [child, *others]).steps == 300
        return child.run_id

    with server() as doomed:
        run_id = train(KillWhenTold(doomed))
        assert doomed.returncode == -9
    assert f"run {run_id} has the rest when its stage is run again" in caplog.text
    assert "pa55" not in caplog.text
    with server():
        assert train() == run_id  # the run is not repeated, its events are logged again
        client = MlflowClient(address)
        expected: dict[str, list[tuple[int, int, float]]] = {}
        for event in read_events(run_folder(tiny) / "events.jsonl"):
            for key, value in metrics_of(event):
                expected.setdefault(key, []).append((event.step, round(event.time * 1000), value))
        assert len(expected["train/loss"]) == 300
        for key, points in expected.items():
            told = [(each.step, each.timestamp, each.value) for each in client.get_metric_history(run_id, key)]
            assert sorted(told) == sorted(points), key
        run = client.get_run(run_id)
        assert run.info.status == "FINISHED"
        if (chromium := shutil.which("chromium")) is not None:  # the page that every address leads to
            options = ["--headless", "--no-sandbox", "--virtual-time-budget=20000", f"--user-data-dir={tmp_path}"]
            command = [chromium, *options, "--dump-dom", f"{address}/{runs_page(run.info.experiment_id)}"]
            shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            assert client.get_run(run.data.tags[PARENT_TAG]).info.run_name in shown.stdout
            assert f"#/experiments/{run.info.experiment_id}/judges" not in shown.stdout  # a page for applications
    requests = [line for line in (tmp_path / "mlflow-server.log").read_text().splitlines() if "HTTP/1.1" in line]
    assert requests == []  # as `make serve` starts it
