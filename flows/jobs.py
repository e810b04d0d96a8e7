"""A folder of jobs for another machine: `python -m flows.jobs [--compare] --to FOLDER`.

The folder holds every run that `python -m flows.pipeline` would start now, in order, with data and model. The other
machine runs them with `python -m velocitune_core.train --all FOLDER`, and `python -m flows.collect FOLDER` brings the
results home. Nothing is trained here: documents are fetched and packed, and the base's tokenizer is built, if need be.
"""

from pathlib import Path

from prefect import flow

from flows.corpus import corpus
from flows.prepare import pack_all, prepare
from flows.targets import targets
from tasks.transfer.command import run_jobs
from tasks.transfer.export import folder_contents, write_folder
from tasks.transfer.known import inputs_of_base, known_here, with_untrained_base
from tasks.transfer.steps import steps_of
from tasks.workspace.dvc_stages import commit, is_up_to_date, stages_in_order
from tasks.workspace.params_file import params_snapshot
from tasks.workspace.preflight import checked_params

HERE = {each.name: each for each in (corpus, prepare, targets)}  # stages that train and measure nothing
LAST = ("weights", "train", "report", "compare")


@flow(name="jobs")
def jobs(compare: bool, to: Path) -> None:
    params, goal = checked_params(compare), "compare" if compare else "report"
    waiting = bring_up_to_date(goal)
    base = inputs_of_base(params) if "base" in waiting else None
    if base is not None:
        pack_all(with_untrained_base(params))
    graph = steps_of(params, known_here(base, fits_targets=bool(waiting)), compare)
    contents = folder_contents(params, graph, goal)
    write_folder(contents, to, graph.steps)


def bring_up_to_date(goal: str) -> list[str]:
    """Run the stages that need no device, and return those that are left to the other machine."""
    waiting: list[str] = []
    with params_snapshot() as snapshot:
        for address in stages_in_order(goal):
            name = address.split(":")[-1]
            if name in LAST:
                continue
            if waiting or (name not in HERE and not is_up_to_date(address)):
                waiting.append(name)
            elif name in HERE and not is_up_to_date(address):
                HERE[name]()
                commit(address, snapshot.unchanged)
    return waiting


if __name__ == "__main__":
    run_jobs(jobs)
