"""Stage `proxies`: one task per proxy run, so that each is scheduled, retried and fails by itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.states import State

from tasks.runs.jobs import proxy_name
from tasks.runs.launch import TrainingStoppedError, may_be_retried, run_training
from tasks.runs.run_folder import run_folder
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher
from tasks.workspace import paths
from velocitune_core.config import Params, Proxies
from velocitune_core.contracts import ProxyResult, TrainResult
from velocitune_core.files import replacing
from velocitune_core.train.job import TrainJob

logger = logging.getLogger(__name__)
SECONDS_BEFORE_RETRY = 5
HOW_TO_RETRY = "`dvc repro --force --single-item proxies` trains what is missing"


class ProxiesFailedError(RuntimeError):
    """Too few proxies finished for a scaling law; the results of those that did are kept in runs/ and reused."""


@task(task_run_name="{job.name}", retry_delay_seconds=SECONDS_BEFORE_RETRY, retry_condition_fn=may_be_retried)
def train_proxy(job: TrainJob, params: Params, comparing: bool = False) -> ProxyResult:
    """Run a proxy, or take the result of a finished run of the same recipe."""
    return ProxyResult.of(run_small(job, params, comparing), job.fraction, job.training.seed)


def run_small(job: TrainJob, params: Params, comparing: bool = False) -> TrainResult:
    """Run a job in as many processes as proxies have, or take its finished result, and show it in all views.

    Args:
        comparing: whether it belongs to a label of the comparison.
    """
    tracker = Tracker(params, comparing)
    tags = {"velocitune.fraction": f"{job.fraction:g}", "velocitune.seed": str(job.training.seed)}
    child = tracker.child(job.name, run_folder(job), tags)
    resources = params.resources.model_copy(update={"processes": params.proxies.processes, "nodes": 1})
    watchers = [TerminalWatcher(), PrefectWatcher(job.name), child]
    return run_training(job, resources, watchers, spread=True)


def results_of(names: Sequence[str], states: Sequence[State], fewest: int) -> list[ProxyResult]:
    """Return the results of the proxies that finished; those that failed after all retries are named in a warning.

    Args:
        fewest: sizes that the targets need.

    Raises ProxiesFailedError from the first failure if fewer sizes are left, and TrainingStoppedError if a proxy was
    stopped on request.
    """
    results: list[ProxyResult] = []
    failed: dict[str, Any] = {}
    for name, state in zip(names, states, strict=True):
        if state.is_completed():
            results.append(state.result())
        else:
            failed[name] = state.result(raise_on_failure=False)
    if not failed:
        return results
    for failure in failed.values():
        if isinstance(failure, TrainingStoppedError):
            raise failure
    named, sizes = ", ".join(failed), len({result.fraction for result in results})
    if sizes < fewest:
        raise ProxiesFailedError(
            f"{named} failed, and the targets need proxies of {fewest} sizes at least, not {sizes}; "
            "fix the cause and run the stage again, which trains only these"
        ) from next(iter(failed.values()))
    logger.warning(
        "%s failed after all retries (%s): targets will be fitted to the other %d; %s",
        named,
        str(next(iter(failed.values()))).partition("\n")[0],
        len(results),
        HOW_TO_RETRY,
    )
    return results


def missing_proxies(settings: Proxies, results: Sequence[ProxyResult]) -> list[str]:
    """Return the names of the configured proxies without a result."""
    found = {result.name for result in results}
    wanted = [proxy_name(fraction, seed) for seed in settings.seeds for fraction in settings.fractions]
    return [name for name in wanted if name not in found]


@task(name="write proxies")
def write_proxies(results: list[ProxyResult]) -> None:
    """Write results/proxies/<name>.json for each, and remove those of other settings."""
    with replacing(paths.PROXIES) as folder:
        for result in results:
            result.write(folder / f"{result.name}.json")


def read_proxies() -> list[ProxyResult]:
    """Return all of results/proxies, in order of seed and fraction."""
    results = [ProxyResult.read(path) for path in paths.PROXIES.glob("*.json")]
    return sorted(results, key=lambda result: (result.seed, result.fraction))
