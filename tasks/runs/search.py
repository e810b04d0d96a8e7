"""Runs before a run: strategies whose weights are found in a search, and then held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.runs.jobs import search_job, with_weights
from tasks.runs.launch import run_folder
from velocitune_core.contracts import TrainResult
from velocitune_core.model.io import model_digest
from velocitune_core.strategies import strategy_class
from velocitune_core.train.job import TrainJob


@dataclass(frozen=True)
class Search:
    """What was spent on finding weights."""

    tokens: int = 0
    seconds: float = 0.0


def find_weights(job: TrainJob, reference: TrainJob, run: Callable[[TrainJob], TrainResult]) -> tuple[TrainJob, Search]:
    """Search, beside the trained reference if the strategy needs one, and return the job under the weights found.

    Those are the mean weights of the search, held constant. A job that does not search comes back as it is.
    """
    if job.strategy.search is None:
        return job, Search()
    search, before = search_job(job), []
    if strategy_class(job.strategy.name).needs_reference:
        before.append(run(reference))
        folder = run_folder(reference) / "model"
        search = search.model_copy(update={"reference": str(folder), "reference_sha256": model_digest(folder)})
    found = run(search)
    runs = [*before, found]
    spent = Search(sum(each.tokens for each in runs), sum(each.seconds.total for each in runs))
    return with_weights(job, job.name, found.mean_domain_weights), spent
