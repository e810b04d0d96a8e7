"""Task runners for independent runs: threads of this machine, or a Ray cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from prefect import get_client
from prefect.exceptions import TerminationSignal
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.runs.devices import parallel_runs
from tasks.runs.torchrun import STOPPING
from tasks.views.mlflow_runs import Tracker
from tasks.workspace.fresh import FRESH_SINCE
from velocitune_core.config import ConfigError, Params, Resources


@contextmanager
def fan_out(params: Params) -> Iterator[TaskRunner[Any]]:
    """Yield the task runner that `proxies.runner` names; tasks submitted inside reserve the devices of a proxy.

    Ray is the cluster that RAY_ADDRESS names, or the one on this machine, or, if there is none, a temporary one. Its
    nodes need the workspace under the same path. Raises ConfigError if no node can hold a run.
    """
    if params.proxies.runner == "local":
        with ThreadPoolTaskRunner(max_workers=parallel_runs(params.resources)) as runner, stopped_by_signal():
            yield runner
        return
    import ray
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    Tracker(params)  # creates the parent run, or every worker would create its own
    with RayTaskRunner(init_kwargs={"runtime_env": {"worker_process_setup_hook": _entering(Path.cwd())}}) as runner:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        share = share_of_node(params.resources, params.proxies.processes, [node["Resources"] for node in nodes])
        hosts = {node["NodeManagerHostname"] for node in nodes}
        variables = worker_variables(hosts == {socket.gethostname()})
        with remote_options(**share, scheduling_strategy="SPREAD", runtime_env={"env_vars": variables}):
            yield runner


@contextmanager
def stopped_by_signal() -> Iterator[None]:
    """Have the runs of threads save and stop when a signal ends the flow, which else waits until they are finished.

    Prefect raises the signal in the flow's own thread only. Runs that are submitted inside end with this block's event,
    also after it; those of a later flow have another one.
    """
    outer = STOPPING.set(stopping := Event())
    try:
        yield
    except TerminationSignal:
        stopping.set()
        raise
    finally:
        STOPPING.reset(outer)


def share_of_node(resources: Resources, processes: int, nodes: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the resources that one run reserves: GPUs for its processes if any node has some, CPUs for its threads.

    Args:
        nodes: the resources of each node by Ray's names, `CPU` and `GPU`; a name is missing if there are none.

    Raises ConfigError if no node has as many.
    """
    gpus = max(node.get("GPU", 0.0) for node in nodes)
    if gpus:
        if gpus < processes:
            raise ConfigError(
                f"proxies.processes: {processes} need as many GPUs, the largest node of the Ray cluster has {gpus:g}"
            )
        needed = processes if processes > 1 else 1 / resources.runs_per_device  # Ray can split one GPU, not several
        return {"num_gpus": float(needed), "num_cpus": float(processes)}
    cpus = [node["CPU"] for node in nodes if node.get("CPU")]
    threads = (resources.threads or 1) * processes
    if max(cpus, default=0.0) < threads:
        raise ConfigError(
            f"a proxy needs {threads} CPUs (resources.threads × proxies.processes), and the largest node of the Ray "
            f"cluster has {max(cpus, default=0):g}; lower them, or start nodes with more (`ray start --num-cpus`)"
        )
    even = min(cpus) // resources.runs_per_device
    return {"num_cpus": float(threads if resources.threads else max(threads, even))}


def worker_variables(one_machine: bool) -> dict[str, str]:
    """Return the environment of the workers: this code, and the Prefect server of this run if they can reach it."""
    variables = {"PYTHONPATH": str(Path.cwd()), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    if FRESH_SINCE in os.environ:
        variables[FRESH_SINCE] = os.environ[FRESH_SINCE]
    with get_client(sync_client=True) as client:
        server = str(client.api_url)
    if one_machine or not _is_loopback(urlsplit(server).hostname or ""):
        variables["PREFECT_API_URL"] = server
    return variables


def _entering(folder: Path) -> Callable[[], None]:
    def enter() -> None:
        os.chdir(folder)

    return enter


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
