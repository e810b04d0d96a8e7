"""Stage `train`: the continual pretraining."""

from __future__ import annotations

import shutil

from prefect import task

from tasks.runs.facts import settings_of
from tasks.runs.jobs import training_job
from tasks.runs.launch import run_training
from tasks.runs.planned import weights_inputs
from tasks.runs.run_folder import run_folder
from tasks.runs.steering import main_job
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, Targets, TrainResult
from velocitune_core.files import replacing, write_text
from velocitune_core.train.events import read_events
from velocitune_core.train.timeline import timeline


@task(name="train")
def train_model(params: Params) -> TrainResult:
    """Train under the configured strategy; write results/train.json, results/events.jsonl and models/trained.

    Weights that the stage `weights` found are held constant, or are where a steered run starts.
    """
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    targets, found = Targets.read(paths.TARGETS), StartingWeights.read(paths.WEIGHTS)
    job = training_job(params, manifest, initial, targets)
    job = main_job(job, params.strategy, found, initial, weights_inputs(params, job, manifest, initial, targets))
    watchers = [
        TerminalWatcher(shows_weights=True),
        PrefectWatcher(job.name),
        Tracker(params).child(job.name, run_folder(job)),
    ]
    result = run_training(job, params.resources, watchers, spread=True)
    folder = run_folder(job)
    with replacing(paths.TRAINED_MODEL) as temporary:
        shutil.copytree(folder / "model", temporary)
    lines = [event.model_dump_json() + "\n" for event in timeline(read_events(folder / "events.jsonl"))]
    write_text(paths.EVENTS, "".join(lines))
    result = result.model_copy(update={"settings": settings_of(params)})
    result.write(paths.TRAIN)
    return result
