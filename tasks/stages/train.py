"""Stage `train`: the continual pretraining."""

from __future__ import annotations

import shutil

from prefect import task

from tasks.runs.budget import sizes_of
from tasks.runs.jobs import reference_job, training_job
from tasks.runs.launch import run_training
from tasks.runs.run_folder import run_folder
from tasks.runs.search import find_weights
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, Targets, TrainResult
from velocitune_core.files import replacing, write_text
from velocitune_core.train.events import read_events
from velocitune_core.train.job import TrainJob
from velocitune_core.train.timeline import timeline


@task(name="train")
def train_model(params: Params) -> TrainResult:
    """Train under the configured strategy; write results/train.json, results/events.jsonl and models/trained.

    A strategy that searches for its weights takes the search's run first, and a reference model's if it needs one.
    """
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)

    def run(job: TrainJob) -> TrainResult:
        child = Tracker(params).child(job.name, run_folder(job))
        watchers = [TerminalWatcher(), PrefectWatcher(job.name), child]
        return run_training(job, params.resources, watchers, spread=True)

    job = training_job(params, manifest, initial, Targets.read(paths.TARGETS))
    job, _ = find_weights(job, reference_job(job), sizes_of(manifest), run)
    result = run(job)
    folder = run_folder(job)
    with replacing(paths.TRAINED_MODEL) as temporary:
        shutil.copytree(folder / "model", temporary)
    lines = [event.model_dump_json() + "\n" for event in timeline(read_events(folder / "events.jsonl"))]
    write_text(paths.EVENTS, "".join(lines))
    result.write(paths.TRAIN)
    return result
