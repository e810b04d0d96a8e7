"""Finished runs that a plan takes although they were made before a domain was added: its weight is 0 in them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tasks.runs.run_folder import finished_result
from tasks.workspace import paths
from velocitune_core.config import ConfigError
from velocitune_core.contracts import ContractError, Manifest, TrainResult
from velocitune_core.train.job import TrainJob, read_job, recipe_of

logger = logging.getLogger(__name__)


def earlier_runs(jobs: Sequence[TrainJob], manifest: Manifest) -> list[tuple[TrainJob, TrainResult]]:
    """Return finished static runs of fewer domains that are otherwise like runs of a swarm, the oldest name first.

    Such a run has the same model, fraction, number of steps and settings as a run of the swarm, and the same text in
    each of its domains. With another number of steps its losses would be those of another budget (docs/PLANNING.md);
    those runs are counted in a warning, with the budget that keeps theirs.

    Args:
        jobs: of the swarm.
    """
    if not jobs:
        return []
    wanted, without_steps = ({_likeness(job, steps) for job in jobs} for steps in (True, False))
    found, of_other_length = [], []
    for job in _runs_of_fewer_domains(jobs[0]):
        if _likeness(job, True) in wanted:
            try:
                result = finished_result(job)
            except ContractError:
                continue
            if result is not None:
                found.append((job, result))
        elif _likeness(job, False) in without_steps:
            of_other_length.append(job)
    if of_other_length:
        _warn(of_other_length, jobs, manifest)
    return found


def same_sets(job: TrainJob, manifest: Manifest) -> list[str]:
    """Return the held-out sets that a run measured on the text that they have now."""
    measured = {name: files.held_out_sha256 for name, files in job.domains.items()}
    measured |= {name: file.sha256 for name, file in job.measured.items()}
    now = {name: domain.held_out.sha256 for name, domain in (manifest.domains | manifest.measured).items()}
    return [name for name, digest in now.items() if measured.get(name) == digest]


def _runs_of_fewer_domains(like: TrainJob) -> Iterator[TrainJob]:
    """Yield the jobs in `runs/` whose domains are some of a job's, with the same text."""
    for file in sorted(paths.RUNS.glob("*/job.json")):
        try:
            job = read_job(file)
        except (ConfigError, OSError):  # of another version
            continue
        if (
            isinstance(job, TrainJob)
            and 1 < len(job.domains) < len(like.domains)
            and all(files == like.domains.get(name) for name, files in job.domains.items())
        ):
            yield job


def _likeness(job: TrainJob, steps: bool) -> str:
    """Return all of a recipe that must be the same, as text; domains, their weights, and what is measured may differ.

    Evaluations in between change no result of a run under constant weights.
    """
    recipe: dict[str, Any] = recipe_of(job.model_dump(mode="json"))
    for name in ("domains", "measured", "initial_domain_weights", *([] if steps else ["total_steps"])):
        recipe.pop(name, None)
    recipe["evaluation"] = {name: value for name, value in recipe["evaluation"].items() if name != "every_steps"}
    return json.dumps(recipe, sort_keys=True)


def _warn(others: Sequence[TrainJob], jobs: Iterable[TrainJob], manifest: Manifest) -> None:
    steps = {job.fraction: job.total_steps for job in jobs}
    other = max(others, key=lambda job: (job.fraction, job.total_steps))
    whole = round(other.total_steps / other.fraction)
    tokens = whole * other.training.batch_sequences * manifest.sequence_length
    logger.warning(
        "finished runs without %s, %d of them, do not count in the plan: on the fraction %g of their budget they took "
        "%d steps, and runs take %s now. training.token_budget: %d keeps the budget that they had",
        ", ".join(sorted(set(manifest.domains) - set(other.domains))),
        len(others),
        other.fraction,
        other.total_steps,
        steps.get(other.fraction, "others"),
        tokens,
    )
