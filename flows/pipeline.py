"""The flow `velocitune`: every stage in order, except those that DVC reports as up to date.

The paper's figure, read from top to bottom: corpus → base → prepare → initial → proxies → targets → weights →
train → report.
"""

from typing import Any, Literal

from prefect import flow, get_run_logger

from flows.base import base
from flows.compare import compare
from flows.corpus import corpus
from flows.initial import initial
from flows.prepare import prepare
from flows.proxies import proxies
from flows.report import report, show_results
from flows.targets import targets
from flows.train import train
from flows.weights import weights
from tasks.planning.announce import announce_length
from tasks.workspace.dvc_stages import commit, is_up_to_date, stages_in_order
from tasks.workspace.fresh import starting_over
from tasks.workspace.lock import exclusive
from tasks.workspace.params_file import params_snapshot, read_params
from tasks.workspace.stage_cli import run_pipeline, settle_params

IN_ORDER = (corpus, base, prepare, initial, proxies, targets, weights, train, report, compare)
STAGES = {each.name: each for each in IN_ORDER}
STAGES_WITH_RUNS = {"base", "initial", "proxies", "weights", "train", "compare"}


@flow(name="velocitune")
def velocitune(
    overrides: dict[str, Any] | None = None, goal: Literal["report", "compare"] = "report", fresh: bool = False
) -> list[str]:
    """Run the stages that are not up to date, and commit what they make to DVC.

    Args:
        overrides: new values of params.yaml by dotted key, e.g. {"training.seed": 2}; they are written into
            params.yaml, as `dvc exp run --set-param` does.
        goal: `report` trains under the configured strategy; `compare` trains under all those of `compare.runs`.
        fresh: start every run over, also of stages that are up to date.

    Returns the names of the stages that ran. Raises ParamsChangedError at the end if params.yaml was edited meanwhile:
    stages use the settings as they were at the start, and what ran after the edit is not committed.
    """
    logger = get_run_logger()
    ran, uncommitted = [], []
    with exclusive(), starting_over(fresh):
        settle_params(overrides or {}, comparing=goal == "compare")
        with params_snapshot() as snapshot:
            for address in stages_in_order(goal):
                name = address.split(":")[-1]
                again = fresh and name in STAGES_WITH_RUNS
                if not again and snapshot.unchanged() and is_up_to_date(address):
                    logger.info("%s: up to date, skipped", name)
                    continue
                if not ran:
                    announce_length(read_params(), goal == "compare")
                STAGES[name]()
                ran.append(name)
                if not commit(address, snapshot.unchanged):
                    uncommitted.append(name)
            snapshot.check_committed(uncommitted)
    return ran


if __name__ == "__main__":
    run_pipeline(velocitune, show_results)
