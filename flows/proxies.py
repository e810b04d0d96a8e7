"""Stage `proxies`: sub-sampled runs under the initial domain weights, one task each, which fail alone."""

from typing import Any

from prefect import flow, unmapped
from prefect.futures import wait

from tasks.runs.budget import check_planned
from tasks.runs.executors import fan_out
from tasks.runs.jobs import proxy_jobs
from tasks.stages.proxies import results_of, train_proxy, write_proxies
from tasks.views.table_rows import show_proxies
from tasks.workspace import paths
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage
from velocitune_core.contracts import Manifest


@flow(name="proxies", flow_run_name="proxies")
def proxies() -> None:
    params = checked_params()
    manifest = Manifest.read(paths.MANIFEST)
    check_planned(params, manifest)
    jobs = proxy_jobs(params, manifest)
    train: Any = train_proxy.with_options(retries=params.proxies.retries)
    with fan_out(params) as runner:
        futures = runner.map(train, {"job": jobs, "params": unmapped(params)})
        wait(futures)
    states = [future.state for future in futures]
    results = results_of([job.name for job in jobs], states, params.fewest_proxies)
    write_proxies(results)
    show_proxies(results)


if __name__ == "__main__":
    run_stage(proxies, trains=True)
