"""The plan that is made from a finished swarm, all that decides it, and whether a plan in a file is that one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.runs.budget import sizes_of, token_budget
from tasks.runs.jobs import search_job
from tasks.runs.swarm import main_flops, objective_of, swarm_jobs, swarm_runs
from tasks.runs.swarm_rounds import Swarm
from tasks.workspace.planned_settings import mixture_of, steering_options
from velocitune_core.config import Mixture, Params
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, Targets
from velocitune_core.planned_weights import plan_weights
from velocitune_core.strategies import PLANNED
from velocitune_core.train.job import TrainJob


def planned_weights(
    params: Params,
    swarm: Swarm,
    manifest: Manifest,
    initial: InitialLosses,
    targets: Targets,
    priced_by: Targets | None = None,
) -> StartingWeights:
    """Return the weights that a finished swarm gives, and the evidence for them. Raises what `plan_weights` raises.

    Args:
        priced_by: targets by whose laws the price is judged, if others than those of the plan.
    """
    mixture = swarm.mixture
    weights, planned = plan_weights(
        swarm_runs(swarm.finished, manifest),
        objective_of(params, mixture, manifest, initial, targets),
        targets,
        law=mixture.swarm.law,
        bootstrap=mixture.swarm.bootstrap,
        main_flops=main_flops(params, manifest),
        token_budget=token_budget(params, manifest),
        model=mixture.swarm.model,
        rounds=swarm.rounds,
        missing_runs=swarm.missing,
        priced_by=priced_by,
    )
    inputs = plan_inputs(params, mixture, swarm.first, manifest, initial, targets)
    return StartingWeights(strategy=PLANNED, found_by="planned", domain_weights=weights, planned=planned, inputs=inputs)


def plan_inputs(
    params: Params,
    mixture: Mixture,
    first: Sequence[TrainJob],
    manifest: Manifest,
    initial: InitialLosses,
    targets: Targets,
) -> dict[str, Any]:
    """Return all that decides a plan, as a tree of JSON: plans of equal inputs are equal.

    Args:
        first: runs of the first round of the swarm, whose folder names stand for model, text, and how they train.

    Raises ConfigError for an objective that contradicts itself.
    """
    objective = objective_of(params, mixture, manifest, initial, targets)
    tree = {
        "objective": asdict(objective),  # with w_0, initial losses, sizes of the domains, and the budget
        "static_losses": targets.losses() | (targets.measured.losses if targets.measured else {}),
        "swarm": mixture.swarm.model_dump(mode="json"),
        "runs": {job.name: job.folder_name for job in first},
    }
    return json.loads(json.dumps(tree))


def weights_inputs(
    params: Params, job: TrainJob, manifest: Manifest, initial: InitialLosses, targets: Targets
) -> dict[str, Any]:
    """Return all that decides what the stage `weights` finds; empty if that is w_0.

    Args:
        job: the main run, under the configured strategy.
    """
    if params.strategy.name == PLANNED:
        mixture = mixture_of(params, params.strategy.options)
        first = swarm_jobs(params, manifest, mixture, job.model_sha256)
        return plan_inputs(params, mixture, first, manifest, initial, targets)
    if job.strategy.search is None:
        return {}
    return {"search": search_job(job, sizes_of(manifest)).folder_name}


def plan_of(file: Path, options: Mapping[str, Any], inputs: Callable[[], Mapping[str, Any]]) -> StartingWeights | None:
    """Return the plan in a file if the stage would make the same now; None if it would not, or there is none.

    One that lacks runs would be made again, after another try of these.

    Args:
        options: of `planned`; the plan has all that a run under them needs.
        inputs: returns what would decide the plan now.
    """
    if not file.exists() or (planned := (found := StartingWeights.read(file)).planned) is None or planned.missing_runs:
        return None
    steered = found.steering is not None or steering_options(options) is None
    return found if steered and found.inputs == inputs() else None
