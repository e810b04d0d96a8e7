"""Initial losses: the base model on each domain's held-out set."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from tasks.runs.evaluation_jobs import held_out_job
from tasks.runs.launch import run_evaluation
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest


@task(name="evaluate base model")
def evaluate_base(params: Params, manifest: Manifest) -> InitialLosses:
    """Write results/initial.json: held-out losses in nats per token, in the training's precision.

    The training program evaluates, in as many processes of one node as `resources` has, so that a model which needs
    several devices is sharded over them.
    """
    job = held_out_job(params, manifest, "initial", Path(params.model.path))
    resources = params.resources.model_copy(update={"nodes": 1})
    result = run_evaluation(job, resources, [TerminalWatcher(), PrefectWatcher(job.name)], spread=True)
    initial = InitialLosses.of(result, manifest.measured)
    initial.write(paths.INITIAL)
    return initial
