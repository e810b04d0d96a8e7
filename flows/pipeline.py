"""The flow `velocitune`: every stage in order, without those that DVC knows to be up to date.

The paper's figure, read from top to bottom: corpus → base → prepare → initial → proxies → targets → train → report.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Literal

from prefect import flow, get_run_logger

from flows.base import base
from flows.compare import compare
from flows.corpus import corpus
from flows.initial import initial
from flows.prepare import prepare
from flows.proxies import proxies
from flows.report import report
from flows.targets import targets
from flows.train import train
from tasks.views.summary import print_summary
from tasks.workspace.dvc_stages import commit, is_up_to_date, stages_in_order
from tasks.workspace.hub import fetch_named_model
from tasks.workspace.lock import (
    WorkspaceBusyError,
    exclusive,
    spare_tracebacks_of_user_errors,
    stop_children_on_interrupt,
)
from tasks.workspace.params_file import override_params, parse_override
from tasks.workspace.preflight import checked_params, checked_settings

STAGES = {each.name: each for each in (corpus, base, prepare, initial, proxies, targets, train, report, compare)}


@flow(name="velocitune")
def velocitune(overrides: dict[str, Any] | None = None, goal: Literal["report", "compare"] = "report") -> list[str]:
    """Run what is not up to date, and commit it to DVC.

    Args:
        overrides: dotted keys of params.yaml and their new values, e.g. {"training.seed": 2}; they are written
            into params.yaml, as `dvc exp run --set-param` does.
        goal: `report` trains under the configured strategy; `compare` trains all those of `compare.runs` instead.

    Returns the stages that ran.
    """
    logger = get_run_logger()
    ran = []
    with exclusive():
        checked_settings(overrides or {}, goal == "compare")  # what is refused is not written
        override_params(overrides or {})
        fetch_named_model()
        checked_params(comparing=goal == "compare")
        for address in stages_in_order(goal):
            name = address.split(":")[-1]
            if is_up_to_date(address):
                logger.info("%s: up to date, skipped", name)
                continue
            STAGES[name]()
            commit(address)
            ran.append(name)
    return ran


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument(
        "-S",
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change params.yaml before the run, e.g. -S strategy.name=recommended (may be repeated)",
    )
    parser.add_argument(
        "--compare", action="store_true", help="compare the strategies of `compare.runs` instead of training one"
    )
    given = parser.parse_args(arguments)
    stop_children_on_interrupt()
    spare_tracebacks_of_user_errors()
    try:
        overrides: Mapping[str, Any] = dict(map(parse_override, given.set))
        with exclusive():  # nothing is written into params.yaml while another run reads it
            checked_settings(overrides, given.compare)
            override_params(overrides)
            fetch_named_model()
            checked_params(given.compare)  # before Prefect takes seconds to start
            velocitune(goal="compare" if given.compare else "report")
        if not given.compare:
            print_summary(checked_params())
    except (ValueError, WorkspaceBusyError) as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
