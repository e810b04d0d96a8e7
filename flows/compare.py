"""Stage `compare`: strategies × seeds from the same start, one table with error bars, one page.

Only what is missing is trained. `python -m flows.pipeline --compare` brings up to date what it rests on first.
"""

from prefect import flow, get_run_logger
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.runs.devices import parallel_runs
from tasks.stages.compare import (
    compared_lines,
    finished_before,
    in_order,
    parent_of,
    publish_comparison,
    side_by_side,
    train_compared,
    write_comparison,
)
from tasks.stages.downstream import draw_questions
from tasks.workspace.lock import run_stage
from tasks.workspace.preflight import checked_params


@flow(name="compare")
def compare() -> None:
    params = side_by_side(checked_params(comparing=True))
    settings, order = compared_lines(params), in_order(params)
    get_run_logger().info("%d trainings, of which %d are there already", len(order), finished_before(params))
    questions = draw_questions(params) if settings.downstream else None
    train = train_compared.with_options(retries=params.proxies.retries)
    futures = {}
    with ThreadPoolTaskRunner(max_workers=parallel_runs(params.resources)) as runner:
        for label, seed in order:
            start = parent_of(params, label)
            known = {"params": params, "label": label, "seed": seed, "questions": questions}
            futures[label, seed] = runner.submit(train, {**known, "parent": futures[start, seed] if start else None})
        wait(list(futures.values()))
    runs = [future.result() for future in futures.values() if future.state.is_completed()]
    if any(run.label == settings.baseline for run in runs):  # what they cost is shown, whatever became of the others
        publish_comparison(params, write_comparison(params, runs))
    for future in futures.values():
        future.result()


if __name__ == "__main__":
    run_stage(compare, comparing=True)
