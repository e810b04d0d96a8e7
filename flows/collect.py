"""Bring the results of a folder of jobs home: `python -m flows.collect FOLDER`.

Results of other settings, data, models or code are refused, with what differs. The stages that have all they need are
then run, which trains nothing: they take the results, log them to MLflow, and are committed to DVC.
"""

from pathlib import Path

from prefect import flow, get_run_logger

from flows.pipeline import STAGES
from tasks.transfer.collect import (
    bring_runs,
    bring_targets,
    checked_results,
    initial_losses_differ,
    missing_runs,
    read_folder,
)
from tasks.transfer.command import run_collect
from tasks.transfer.known import inputs_of_base, known_here
from tasks.transfer.steps import steps_of
from tasks.views.publish import publish_recorded
from tasks.workspace.dvc_stages import commit, is_up_to_date, stages_in_order
from tasks.workspace.params_file import params_snapshot
from tasks.workspace.preflight import checked_params


@flow(name="collect")
def collect(folder: Path) -> None:
    contents, theirs = read_folder(folder)
    comparing = contents.goal == "compare"
    params, logger = checked_params(comparing), get_run_logger()
    base = inputs_of_base(params) if contents.trains_base else None
    ours = steps_of(params, known_here(base, fits_targets=contents.fits_targets), comparing)
    results = checked_results(folder, contents, theirs, ours)
    bring_runs(results)
    uncommitted = []
    with params_snapshot() as snapshot:
        for address in stages_in_order(contents.goal):
            name = address.split(":")[-1]
            if is_up_to_date(address) and not (name == "initial" and initial_losses_differ(results)):
                continue
            if missing := missing_runs(name, ours, results):
                logger.warning("%s waits for %s; the later stages wait with it", name, ", ".join(missing))
                break
            if name == "targets" and contents.fits_targets:
                bring_targets(folder)
            else:
                STAGES[name]()
            if commit(address, snapshot.unchanged):
                logger.info("%s: up to date", name)
            else:
                uncommitted.append(name)
        publish_recorded(params, comparing)
        snapshot.check_committed(uncommitted)


if __name__ == "__main__":
    run_collect(collect)
