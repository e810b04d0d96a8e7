"""Proxy runs: one task each, so that they fan out, are retried alone, and fail alone."""

from __future__ import annotations

from prefect import task

from tasks import paths
from tasks.launch import run_folder, run_training
from tasks.tracking import Tracker
from tasks.watchers import PrefectWatcher, TerminalWatcher
from velocitune_core.atomic import replacing
from velocitune_core.config import Params
from velocitune_core.contracts import ProxyResult
from velocitune_core.job import TrainJob

SECONDS_BEFORE_RETRY = 5


@task(task_run_name="{job.name}", retry_delay_seconds=SECONDS_BEFORE_RETRY)
def train_proxy(job: TrainJob, params: Params) -> ProxyResult:
    """Run a proxy, or take what an earlier run of the same proxy left."""
    tracker = Tracker(params)
    tags = {"velocitune.fraction": f"{job.fraction:g}", "velocitune.seed": str(job.training.seed)}
    child = tracker.child(job.name, run_folder(job).name, tags)
    result = run_training(job, params.resources, [TerminalWatcher(), PrefectWatcher(job.name), child])
    return ProxyResult(
        name=job.name,
        fraction=job.fraction,
        seed=job.training.seed,
        steps=result.steps,
        tokens=result.tokens,
        points=result.points,
        seconds=result.seconds.total,
    )


@task(name="write proxies")
def write_proxies(results: list[ProxyResult]) -> None:
    """results/proxies/<name>.json each; those of other settings go."""
    with replacing(paths.PROXIES) as folder:
        for result in results:
            result.write(folder / f"{result.name}.json")


def read_proxies() -> list[ProxyResult]:
    """All of results/proxies, in order of seed and fraction."""
    results = [ProxyResult.read(path) for path in paths.PROXIES.glob("*.json")]
    return sorted(results, key=lambda result: (result.seed, result.fraction))
