"""Runs over a real Ray cluster of two nodes: the resources they reserve, where they run, and what they write.

One driver does all: two short runs, then two that do not end before it is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from databases import copy_database
from tiny import job as tiny_job

from tasks.runs.executors import share_of_node
from tasks.runs.launch import run_training
from velocitune_core.config import ConfigError, Resources
from velocitune_core.train.job import TrainJob

ROOT = Path(__file__).parents[3]
SECONDS_FOR_ANYTHING = 300
DRIVER = """
import json, os
from pathlib import Path
import tasks
from prefect import flow, task, unmapped
from prefect.futures import wait
from tasks.runs.executors import fan_out
from tasks.stages.proxies import train_proxy
from velocitune_core.config import load_params
from velocitune_core.files import write_text
from velocitune_core.train.job import TrainJob

@task
def place(number):
    import time, ray
    time.sleep(2)  # or one node would finish before the other starts
    return ray.get_runtime_context().get_node_id(), os.getcwd(), os.environ["PREFECT_API_URL"]

@flow
def fan(names):
    params = load_params(Path("params.yaml"))
    jobs = [TrainJob.model_validate_json(Path(f"{name}.json").read_text(), strict=False) for name in names]
    with fan_out(params) as runner:
        places = runner.map(place, {"number": [1, 2]})
        proxies = runner.map(train_proxy, {"job": jobs, "params": unmapped(params)})
        wait(proxies)
        results = [future.result() for future in proxies]
        found = [future.result() for future in places]
    report = {"places": found, "proxies": [result.model_dump(exclude={"seconds"}) for result in results]}
    write_text(Path("report.json"), json.dumps(report))

fan(["short-1", "short-2"])
fan(["long-1", "long-2"])
"""
LONG = {"total_steps": 200_000, "execution__checkpoint_every_steps": 20}


@pytest.mark.parametrize(
    ("resources", "processes", "nodes", "share"),
    [
        ({}, 1, [{"CPU": 8.0}, {"CPU": 4.0}, {}], {"num_cpus": 4.0}),  # even the smaller node takes one whole
        ({"runs_per_device": 3}, 1, [{"CPU": 8.0}], {"num_cpus": 2.0}),
        ({"threads": 2}, 1, [{"CPU": 8.0}, {"CPU": 1.0}], {"num_cpus": 2.0}),
        ({"threads": 2}, 3, [{"CPU": 8.0}], {"num_cpus": 6.0}),
        ({}, 1, [{"CPU": 64.0}, {"CPU": 16.0, "GPU": 8.0}], {"num_cpus": 1.0, "num_gpus": 1.0}),
        ({"runs_per_device": 2}, 1, [{"CPU": 4.0, "GPU": 4.0}], {"num_cpus": 1.0, "num_gpus": 0.5}),
        ({"runs_per_device": 2}, 3, [{"CPU": 4.0, "GPU": 4.0}], {"num_cpus": 3.0, "num_gpus": 3.0}),
    ],
)
def test_the_resources_that_a_run_reserves_on_a_node(
    resources: dict[str, int], processes: int, nodes: list[Mapping[str, float]], share: dict[str, float]
) -> None:
    assert share_of_node(Resources(**resources), processes, nodes) == share


def test_a_run_that_no_node_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a proxy needs 4 CPUs .* the largest node of the Ray cluster has 2; lower"):
        share_of_node(Resources(threads=2), 2, [{"CPU": 2.0}, {"CPU": 1.0}])
    with pytest.raises(ConfigError, match="has 0; lower"):
        share_of_node(Resources(), 1, [{}])
    with pytest.raises(ConfigError, match=r"processes: 8 need as many GPUs, the largest node of .* has 4"):
        share_of_node(Resources(), 8, [{"CPU": 16.0, "GPU": 4.0}])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a head without CPUs and two workers of one CPU each."""
    from ray.cluster_utils import Cluster

    made = Cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # not Ray's 15, at which runs beside other tests hardly get a core
        for cpus in (0, 1, 1):
            made.add_node(num_cpus=cpus, num_gpus=0, include_dashboard=False, object_store_memory=100 * 2**20)
    yield made.address
    made.shutdown()


@pytest.fixture(scope="module")
def driver(
    tmp_path_factory: pytest.TempPathFactory, tiny_inputs: Path, cluster: str, prefect_database: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Two and two runs of a workspace over the cluster; both may run on this one machine at once."""
    folder = tmp_path_factory.mktemp("ray")
    copy_database(prefect_database, folder / "prefect/prefect.db")
    domains = {name: {"source": {"type": "jsonl", "path": f"{name}.jsonl"}} for name in ("code", "general")}
    settings = {
        "domains": domains,
        "data": {"path": "data/raw"},
        "model": {"path": "models/mine"},
        "training": {"optimizer": {"learning_rate": 0.001}},
        "proxies": {"runner": "ray"},
        "resources": {"threads": 1, "runs_per_device": 2},
    }
    (folder / "params.yaml").write_text(json.dumps(settings))  # JSON is YAML
    for seed in (1, 2):
        for kind, changes in {"short": {}, "long": LONG}.items():
            tree = short_job(tiny_inputs, seed, **changes)
            (folder / f"{kind}-{seed}.json").write_text(json.dumps(tree))
    environment = {
        **os.environ,
        "RAY_ADDRESS": cluster,
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with (folder / "driver.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def folder(driver: subprocess.Popen[bytes]) -> Path:
    """Where the driver works."""
    return Path(psutil.Process(driver.pid).cwd())


def short_job(inputs: Path, seed: int, **changes: Any) -> dict[str, Any]:
    return tiny_job(inputs, Path(), name=f"proxy-{seed}", training__seed=seed, **changes) | {"output": ""}


@pytest.mark.slow
@pytest.mark.usefixtures("forked_program")
def test_over_two_nodes_the_proxies_are_those_of_one_machine(
    driver: subprocess.Popen[bytes], folder: Path, workspace: Path, tiny_inputs: Path
) -> None:
    wait_for((folder / "report.json").exists, driver, folder / "driver.log")
    report = json.loads((folder / "report.json").read_text())
    nodes, folders, servers = zip(*report["places"], strict=True)
    assert len(set(nodes)) == 2, "one run on each of the two nodes"
    assert set(folders) == {str(folder)} and len(set(servers)) == 1
    for seed, proxy in zip((1, 2), report["proxies"], strict=True):
        job = TrainJob.model_validate(short_job(tiny_inputs, seed), strict=False)
        here = run_training(job, Resources(threads=1))
        assert (proxy["points"][-1]["losses"], proxy["tokens"]) == (here.final, here.tokens)


@pytest.mark.slow
def test_a_killed_driver_leaves_no_run_behind_and_its_checkpoints(
    driver: subprocess.Popen[bytes], folder: Path
) -> None:
    """Last in this file."""
    runs = folder / "runs"
    wait_for(lambda: len(list(runs.glob("*/checkpoints/step-*"))) > 1, driver, folder / "driver.log")
    (server,) = psutil.Process(driver.pid).children()  # of Prefect, which outlives a killed process
    driver.kill()
    driver.wait()
    server.terminate()
    wait_for(lambda: not trainings(runs))
    assert len(list(runs.glob("*/checkpoints/step-*"))) > 1


def trainings(runs: Path) -> list[psutil.Process]:
    """Ranks that train in these folders."""
    return [
        each
        for each in psutil.process_iter(["cmdline"])
        if str(runs.name) in " ".join(each.info["cmdline"] or []) and each.is_running() and _folder(each) == runs.parent
    ]


def _folder(process: psutil.Process) -> Path | None:
    try:
        return Path(process.cwd())
    except psutil.Error:
        return None


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    deadline = time.monotonic() + SECONDS_FOR_ANYTHING
    while not condition():
        assert process is None or process.poll() is None, log and log.read_text()[-6000:]
        assert time.monotonic() < deadline, f"nothing after {SECONDS_FOR_ANYTHING} s"
        time.sleep(0.2)
