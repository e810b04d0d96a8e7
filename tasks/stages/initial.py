"""Initial losses: the base model on each domain's held-out set."""

from __future__ import annotations

import time

from prefect import task

from tasks.runs.devices import leased_device
from tasks.runs.resolved_precision import resolve_precision
from tasks.runs.verify_data import check_packed
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest


@task(name="evaluate base model")
def evaluate_base(params: Params, manifest: Manifest) -> InitialLosses:
    """Write results/initial.json: held-out losses in nats per token, in the training's precision and batch size."""
    from velocitune_core.data.dataset import load_split
    from velocitune_core.parallel.ranks import join_ranks
    from velocitune_core.train.learner import Learner

    start = time.perf_counter()
    splits = [domain.held_out for domain in manifest.domains.values()]
    check_packed((paths.PREPARED / split.file, split.sha256) for split in splits)
    held_out = {name: load_split(paths.PREPARED / domain.held_out.file) for name, domain in manifest.domains.items()}
    with leased_device(params.resources):
        precision = resolve_precision(params.training)
        training = params.training.model_copy(update={"precision": precision})
        start_token = manifest.documents.attention_start
        learner = Learner(params.model.path, training, params.execution, join_ranks(), document_start=start_token)
        losses = learner.evaluate(held_out, params.execution.evaluation_micro_batch_sequences)
    tokens = {name: rows.shape[0] * (rows.shape[1] - 1) for name, rows in held_out.items()}
    seconds = time.perf_counter() - start
    initial = InitialLosses(precision=precision, losses=losses, tokens=tokens, seconds=seconds)
    initial.write(paths.INITIAL)
    return initial
