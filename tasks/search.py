"""Runs before a run: strategies whose weights are found beside a reference model, and then used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.jobs import with_weights
from tasks.launch import run_folder
from velocitune_core.contracts import TrainResult
from velocitune_core.job import TrainJob
from velocitune_core.model import weights_digest
from velocitune_core.strategies import strategy_class


@dataclass(frozen=True)
class Search:
    """What was spent on finding weights."""

    tokens: int = 0
    seconds: float = 0.0


def find_weights(job: TrainJob, reference: TrainJob, run: Callable[[TrainJob], TrainResult]) -> tuple[TrainJob, Search]:
    """Train the reference, search beside it, and return the job under the mean weights of the search, held constant.

    A job whose strategy needs no reference comes back as it is.
    """
    if not strategy_class(job.strategy.name).needs_reference:
        return job, Search()
    trained = run(reference)
    folder = run_folder(reference) / "model"
    search = job.model_copy(
        update={
            "name": f"{job.name}-search",
            "reference": str(folder),
            "reference_sha256": weights_digest(Path(folder)),
            "save_model": False,
        }
    )
    found = run(search)
    spent = Search(trained.tokens + found.tokens, trained.seconds.total + found.seconds.total)
    return with_weights(job, job.name, found.mean_weights), spent
