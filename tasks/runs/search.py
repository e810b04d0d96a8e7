"""Strategies whose domain weights are found in a search and then held constant."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from tasks.runs.jobs import search_job, with_weights
from tasks.runs.run_folder import finished_result, run_folder
from tasks.workspace.fresh import fresh_since
from velocitune_core.contracts import TrainResult
from velocitune_core.model.io import model_digest
from velocitune_core.strategies import strategy_class
from velocitune_core.train.job import TrainJob

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """The runs of a search for domain weights, in order, and their results; none without a search."""

    jobs: tuple[TrainJob, ...] = ()
    results: tuple[TrainResult, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that all of them trained on."""
        return sum(each.tokens for each in self.results)

    @property
    def seconds(self) -> float:
        """Wall time of all of them together."""
        return sum(each.seconds.total for each in self.results)


def find_weights(
    job: TrainJob, reference: TrainJob, sizes: Mapping[str, int], run: Callable[[TrainJob], TrainResult]
) -> tuple[TrainJob, Search]:
    """Run the search of a job, and return the job under the domain weights found and the search's runs.

    The weights are the mean over the search, held constant. A job without a search is returned as it is.

    Args:
        reference: run whose model a strategy compares losses with; it is run first if the strategy needs one.
        sizes: training sequences by domain.
        run: runs a job and returns its result.
    """
    if job.strategy.search is None:
        return job, Search()
    before = [reference] if strategy_class(job.strategy.name).needs_reference else []
    if (earlier := _search_of_an_unfinished_run(job, before, sizes)) is not None:
        return earlier
    results = [run(each) for each in before]
    search = _with_reference(search_job(job, sizes), before)
    return _outcome(job, Search((*before, search), (*results, run(search))))


def _with_reference(search: TrainJob, before: list[TrainJob]) -> TrainJob:
    if not before:
        return search
    folder = run_folder(before[0]) / "model"
    return search.model_copy(update={"reference": str(folder), "reference_sha256": model_digest(folder)})


def _outcome(job: TrainJob, search: Search) -> tuple[TrainJob, Search]:
    """Return the job under the weights of the last run."""
    return with_weights(job, job.name, search.results[-1].mean_domain_weights), search


def _search_of_an_unfinished_run(
    job: TrainJob, before: list[TrainJob], sizes: Mapping[str, int]
) -> tuple[TrainJob, Search] | None:
    """Return the search that an unfinished run of this job was started with, whatever code the search ran under.

    Weights found again, under other code, would be others in their last digits, and the run would start at step 0.
    """
    folders = [run_folder(each) for each in before]
    if fresh_since() is not None or not all((folder / "result.json").exists() for folder in folders):
        return None
    search = _with_reference(search_job(job, sizes), before)
    folders.append(run_folder(search))
    if not (folders[-1] / "result.json").exists() or all(finished_result(each) for each in (*before, search)):
        return None  # not run yet, or to be taken as it is
    results = tuple(TrainResult.read(folder / "result.json") for folder in folders)
    found, spent = _outcome(job, Search((*before, search), results))
    folder = run_folder(found)
    if (folder / "result.json").exists() or not any((folder / "checkpoints").glob("step-*")):
        return None
    logger.warning("%s: continues with the domain weights that its search found under other code", folder)
    return found, spent


def finished_of(job: TrainJob, reference: TrainJob, sizes: Mapping[str, int]) -> dict[str, TrainResult]:
    """Return the results, by name, of those runs that a job needs and that are finished."""
    done: dict[str, TrainResult] = {}

    def take(needed: TrainJob) -> TrainResult:
        if (result := finished_result(needed)) is None:
            raise _MissingError
        done[needed.name] = result
        return result

    with suppress(_MissingError):
        take(find_weights(job, reference, sizes, take)[0])
    return done


class _MissingError(Exception):
    """A run that is not finished."""
