"""Strategies whose domain weights are found in a search and then held constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tasks.runs.jobs import search_job, with_weights
from tasks.runs.run_folder import run_folder
from velocitune_core.contracts import TrainResult
from velocitune_core.model.io import model_digest
from velocitune_core.strategies import strategy_class
from velocitune_core.train.job import TrainJob


@dataclass(frozen=True)
class Search:
    """What the search for domain weights cost; nothing without a search."""

    tokens: int = 0
    seconds: float = 0.0


def find_weights(
    job: TrainJob, reference: TrainJob, sizes: Mapping[str, int], run: Callable[[TrainJob], TrainResult]
) -> tuple[TrainJob, Search]:
    """Run the search of a job, and return the job under the domain weights found and what the search cost.

    The weights are the mean over the search, held constant. A job without a search is returned as it is.

    Args:
        reference: run whose model a strategy compares losses with; it is run first if the strategy needs one.
        sizes: training sequences by domain.
        run: runs a job and returns its result.
    """
    if job.strategy.search is None:
        return job, Search()
    search, before = search_job(job, sizes), []
    if strategy_class(job.strategy.name).needs_reference:
        before.append(run(reference))
        folder = run_folder(reference) / "model"
        search = search.model_copy(update={"reference": str(folder), "reference_sha256": model_digest(folder)})
    found = run(search)
    runs = [*before, found]
    spent = Search(sum(each.tokens for each in runs), sum(each.seconds.total for each in runs))
    return with_weights(job, job.name, found.mean_domain_weights), spent
