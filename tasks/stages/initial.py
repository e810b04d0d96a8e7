"""Initial losses: the base model on each domain's held-out set."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from prefect import task

from tasks.runs.evaluation_jobs import held_out_job
from tasks.runs.launch import run_evaluation
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest

logger = logging.getLogger(__name__)


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
    for warning in worse_than_guessing(initial, manifest.vocabulary_size):
        logger.warning("%s", warning)
    return initial


def worse_than_guessing(initial: InitialLosses, vocabulary_size: int) -> list[str]:
    """Return a warning of the domains whose loss is above that of the same probability for every token."""
    guessing = math.log(vocabulary_size)
    worse = {name: loss for name, loss in (initial.losses | initial.measured).items() if loss > guessing}
    if not worse:
        return []
    listed = ", ".join(f"{name} {loss:.2f}" for name, loss in worse.items())
    return [
        f"model.path: the model is worse than guessing (ln {vocabulary_size:,} = {guessing:.2f} nats per token) on "
        f"{listed}: its tokenizer may be of another model, or it is not trained; look at the folder before going on"
    ]
