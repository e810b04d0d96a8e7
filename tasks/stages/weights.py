"""Stage `weights`: the domain weights that the training starts from, found by a search if the strategy has one."""

from __future__ import annotations

from prefect import task

from tasks.runs.budget import sizes_of
from tasks.runs.jobs import reference_job, training_job
from tasks.runs.launch import run_training
from tasks.runs.price import price_of
from tasks.runs.run_folder import run_folder
from tasks.runs.search import find_weights
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, Targets, TrainResult
from velocitune_core.train.job import TrainJob


@task(name="find weights")
def write_weights(params: Params) -> StartingWeights:
    """Write results/weights.json: w_0, or the weights that the strategy's search finds.

    A strategy that searches takes the search's run, and before it a reference model's if it needs one.
    """
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)

    def run(job: TrainJob) -> TrainResult:
        child = Tracker(params).child(job.name, run_folder(job))
        watchers = [TerminalWatcher(), PrefectWatcher(job.name), child]
        return run_training(job, params.resources, watchers, spread=True)

    job = training_job(params, manifest, initial, Targets.read(paths.TARGETS))
    held, search = find_weights(job, reference_job(job), sizes_of(manifest), run)
    made = zip(search.jobs, search.results, strict=True)
    found = StartingWeights(
        strategy=params.strategy.name,
        found_by="search" if search.jobs else "initial",
        domain_weights=held.initial_domain_weights,
        runs=[price_of(each, result, manifest) for each, result in made],
    )
    found.write(paths.WEIGHTS)
    return found
