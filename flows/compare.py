"""Stage `compare`: strategies × seeds from the same start, one table with error bars, one page.

Only missing runs are trained. `python -m flows.pipeline --compare` brings the stages that it needs up to date first.
"""

from prefect import flow, get_run_logger
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.runs.devices import parallel_runs
from tasks.stages.compare import (
    compared_swarms,
    comparison_settings,
    finished_before,
    parent_of,
    plan_compared,
    plan_of_run,
    publish_comparison,
    runs_in_order,
    side_by_side,
    train_compared,
    write_comparison,
)
from tasks.stages.downstream import sample_questions
from tasks.stages.weights import train_swarm_run
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage


@flow(name="compare")
def compare() -> None:
    params = side_by_side(checked_params(comparing=True))
    settings, order = comparison_settings(params), runs_in_order(params)
    get_run_logger().info("%d runs, %d of them finished before", len(order), finished_before(params))
    questions = sample_questions(params) if settings.downstream else None
    train = train_compared.with_options(retries=params.proxies.retries)
    train_short = train_swarm_run.with_options(retries=params.proxies.retries)
    swarms, futures, short, plans = compared_swarms(params), {}, {}, {}
    with ThreadPoolTaskRunner(max_workers=parallel_runs(params.resources)) as runner:
        for name, jobs in swarms.items():
            for job in jobs:
                if job.folder_name not in short:  # plans may share runs
                    short[job.folder_name] = runner.submit(train_short, {"job": job, "params": params})
            results = [short[job.folder_name] for job in jobs]
            given = {"params": params, "name": name, "jobs": jobs, "results": results}
            plans[name] = runner.submit(plan_compared, given)
        for label, seed in order:
            start = parent_of(params, label)
            parent = futures[start, seed] if start else None
            plan = plans.get(plan_of_run(params, label, seed))
            given = {"params": params, "label": label, "seed": seed, "parent": parent, "plan": plan}
            futures[label, seed] = runner.submit(train, given | {"questions": questions})
        wait(list(futures.values()))
    runs = [future.result() for future in futures.values() if future.state.is_completed()]
    if any(run.label == settings.baseline for run in runs):  # their results are shown even if others failed
        made = {name: plan.result() for name, plan in plans.items() if plan.state.is_completed()}
        publish_comparison(params, write_comparison(params, runs, made))
    for future in futures.values():
        future.result()


if __name__ == "__main__":
    run_stage(compare, comparing=True, trains=True)
