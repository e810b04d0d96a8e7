"""The flow `velocitune`: every stage in order, except those that DVC reports as up to date.

The paper's figure, read from top to bottom: corpus → base → prepare → initial → proxies → targets → weights →
train → report.
"""

from typing import Any, Literal

from prefect import flow, get_run_logger

from flows.base import base
from flows.compare import compare, show_comparison
from flows.corpus import corpus
from flows.initial import initial
from flows.prepare import prepare
from flows.proxies import proxies
from flows.report import report, show_results
from flows.targets import targets
from flows.train import train
from flows.weights import show_mixture, weights
from tasks.planning.announce import announce_length
from tasks.stages.report import publish_outcome
from tasks.views.prefect_runs import log_briefly_if_deployed, name_run
from tasks.views.publish import publish_recorded
from tasks.views.table_rows import print_targets
from tasks.workspace import paths
from tasks.workspace.dvc_stages import commit, is_up_to_date, stages_in_order
from tasks.workspace.form import Average, Seed, StrategyName, Tokens, with_fields
from tasks.workspace.fresh import starting_over
from tasks.workspace.lock import exclusive
from tasks.workspace.params_file import Snapshot, params_snapshot, read_params
from tasks.workspace.stage_cli import run_pipeline, settle_params
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Targets

IN_ORDER = (corpus, base, prepare, initial, proxies, targets, weights, train, report, compare)
STAGES = {each.name: each for each in IN_ORDER}
STAGES_WITH_RUNS = {"base", "initial", "proxies", "weights", "train", "compare"}


@flow(name="velocitune")
def velocitune(
    strategy: StrategyName | None = None,
    seed: Seed | None = None,
    token_budget: Tokens | None = None,
    objective: Average | None = None,
    overrides: dict[str, Any] | None = None,
    goal: Literal["report", "compare", "mixture"] = "report",
    fresh: bool = False,
) -> list[str]:
    """Run the stages that are not up to date, and commit what they make to DVC.

    Settings that are given here are written into params.yaml, as `dvc exp run --set-param` does. If the run is
    cancelled or fails, they are taken back; started again with the same settings, it continues where it was.

    Args:
        strategy: what turns losses into domain weights (strategy.name); none: as in params.yaml.
        seed: of the order of the data (training.seed); none: as in params.yaml.
        token_budget: tokens of the training (training.token_budget); none: as in params.yaml.
        objective: average that the strategy `planned` minimises (mixture.objective.average); none: as in params.yaml.
        overrides: new values of other settings by dotted key, e.g. {"training.optimizer.learning_rate": 0.001}, or by
            section: {"evaluation": {"every_steps": 8}}.
        goal: `report` trains one strategy, `compare` those of `compare.runs`; `mixture` ends with the domain weights.
        fresh: start every run over, also of stages that are up to date.

    Returns the names of the stages that ran. Raises ParamsChangedError at the end if params.yaml was edited meanwhile:
    stages use the settings as they were at the start, and what ran after the edit is not committed.
    """
    log_briefly_if_deployed()
    with exclusive(), starting_over(fresh):
        settle_params(with_fields(overrides, strategy, seed, token_budget, objective), comparing=goal == "compare")
        with params_snapshot() as snapshot:
            params = read_params()
            name_run(params, comparing=goal == "compare")
            ran = run_stages(params, goal, snapshot, fresh=fresh)
        if goal != "mixture":
            publish_outcome(goal, params)
    return ran


def run_stages(params: Params, goal: str, snapshot: Snapshot, *, fresh: bool) -> list[str]:
    """Run the stages that are not up to date, commit each to DVC, and return their names."""
    logger = get_run_logger()
    ran, uncommitted, left = [], [], None
    addresses = stages_in_order(goal)
    names = [address.split(":")[-1] for address in addresses]
    for number, (address, name) in enumerate(zip(addresses, names, strict=True), start=1):
        heading, again = f"[{number}/{len(names)}] {name}", fresh and name in STAGES_WITH_RUNS
        if not again and snapshot.unchanged() and is_up_to_date(address):
            logger.info("%s: up to date, skipped", heading)
            continue
        left = left or announce_length(params, names[number - 1 :], goal == "compare")
        logger.info("%s%s", heading, left.from_stage(name, names))
        run_one(name, goal)
        ran.append(name)
        if not commit(address, snapshot.unchanged):
            uncommitted.append(name)
    if ran:
        publish_recorded(params, comparing=goal == "compare")
    snapshot.check_committed(uncommitted)
    return ran


def run_one(stage: str, goal: str) -> None:
    """Run a stage of the pipeline; of a comparison, whose last table lacks the targets, print them too."""
    STAGES[stage]()
    if stage == "targets" and goal == "compare":
        print_targets(Targets.read(paths.TARGETS), InitialLosses.read(paths.INITIAL).losses)


if __name__ == "__main__":
    run_pipeline(velocitune, {"report": show_results, "compare": show_comparison, "mixture": show_mixture})
