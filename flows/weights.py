"""Stage `weights`: the domain weights that the training starts from, and what is known of them.

Under the strategy `planned` a swarm of short runs comes first, one task each, which fail alone. With
`mixture.swarm.rounds` it begins small, and goes on until the optimum is known well enough. For those who train
elsewhere this command is all they need: it prints weights, predictions, what binds, and the price.
"""

from typing import Any

from prefect import flow, unmapped
from prefect.futures import wait

from tasks.runs.executors import fan_out
from tasks.runs.jobs import initial_domain_weights
from tasks.stages.report import write_plan
from tasks.stages.weights import after_round, swarm_of, train_swarm_run, write_weights
from tasks.views.publish import publish_weights
from tasks.views.table_rows import print_weights, show_weights
from tasks.workspace import paths
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage
from velocitune_core.contracts import Manifest, StartingWeights


@flow(name="weights", flow_run_name="weights")
def weights() -> None:
    params = checked_params()
    swarm = swarm_of(params)
    if swarm.waiting:
        train: Any = train_swarm_run.with_options(retries=params.proxies.retries)
        with fan_out(params) as runner:
            while swarm.waiting:
                futures = runner.map(train, {"job": swarm.waiting, "params": unmapped(params)})
                wait(futures)
                swarm = after_round(params, swarm, [future.result(raise_on_failure=False) for future in futures])
    found = write_weights(params, swarm)
    write_plan(params, found)
    initial = initial_domain_weights(params, Manifest.read(paths.MANIFEST))
    publish_weights(params, found, initial)
    show_weights(found, initial)


def show_mixture() -> None:
    initial = initial_domain_weights(checked_params(), Manifest.read(paths.MANIFEST))
    print_weights(StartingWeights.read(paths.WEIGHTS), initial)


if __name__ == "__main__":
    run_stage(weights, trains=True, changes_params=True)
