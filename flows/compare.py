"""Stage `compare`: strategies × seeds from the same start, one table with error bars, one page.

Only missing runs are trained. `python -m flows.pipeline --compare` brings the stages that it needs up to date first.
"""

from typing import Any

from prefect import allow_failure, flow, get_run_logger
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.runs.compared import comparison_settings, parent_of, runs_in_order, side_by_side
from tasks.runs.devices import parallel_runs
from tasks.runs.executors import stopped_by_signal
from tasks.stages.compare import (
    compared_swarms,
    finished_in_words,
    fit_compared_targets,
    label_of_plan,
    own_proxies,
    plan_compared,
    plan_of_run,
    train_compared,
)
from tasks.stages.comparison_report import publish_comparison, write_comparison
from tasks.stages.downstream import sample_questions
from tasks.stages.proxies import train_proxy
from tasks.stages.weights import train_swarm_run
from tasks.views.summary import print_comparison
from tasks.workspace import paths
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage
from velocitune_core.contracts import Comparison


@flow(name="compare", flow_run_name="compare")
def compare() -> None:
    params = side_by_side(checked_params(comparing=True))
    settings, order = comparison_settings(params), runs_in_order(params)
    get_run_logger().info("runs: %d, finished before: %s", len(order), finished_in_words(params))
    questions = sample_questions(params) if settings.downstream else None
    train = train_compared.with_options(retries=params.proxies.retries)
    train_short = train_swarm_run.with_options(retries=params.proxies.retries)
    train_own = train_proxy.with_options(retries=params.proxies.retries)
    swarms, alone, futures, short, plans, targets = compared_swarms(params), own_proxies(params), {}, {}, {}, {}
    with ThreadPoolTaskRunner(max_workers=parallel_runs(params.resources)) as runner, stopped_by_signal():

        def started(train: Any, jobs: list[Any]) -> list[Any]:
            for job in jobs:
                if job.folder_name not in short:  # labels may share runs
                    short[job.folder_name] = runner.submit(train, {"job": job, "params": params, "comparing": True})
            return [short[job.folder_name] for job in jobs]

        for label, jobs in alone.items():
            given = {"params": params, "label": label, "trained": allow_failure(started(train_own, jobs))}
            targets[label] = runner.submit(fit_compared_targets, given)
        for name, jobs in swarms.items():
            given = {
                "params": params,
                "name": name,
                "jobs": jobs,
                "outcomes": allow_failure(started(train_short, jobs)),
            }
            plans[name] = runner.submit(plan_compared, given | {"own": targets.get(label_of_plan(params, name))})
        for label, seed in order:
            start = parent_of(params, label)
            parent = futures[start, seed] if start else None
            plan = plans.get(plan_of_run(params, label, seed))
            given = {"params": params, "label": label, "seed": seed, "parent": parent, "plan": plan}
            futures[label, seed] = runner.submit(train, given | {"questions": questions, "own": targets.get(label)})
        wait(list(futures.values()))
    runs = [future.result() for future in futures.values() if future.state.is_completed()]
    if any(run.label == settings.baseline for run in runs):  # their results are shown even if others failed
        made = {name: plan.result() for name, plan in plans.items() if plan.state.is_completed()}
        fitted = {label: target.result() for label, target in targets.items() if target.state.is_completed()}
        publish_comparison(params, write_comparison(params, runs, made, fitted))
    for future in [*targets.values(), *plans.values(), *futures.values()]:  # the cause before what it prevented
        future.result()


def show_comparison() -> None:
    print_comparison(Comparison.read(paths.COMPARISON), checked_params(comparing=True).tracking)


if __name__ == "__main__":
    run_stage(compare, comparing=True, trains=True)
    show_comparison()
