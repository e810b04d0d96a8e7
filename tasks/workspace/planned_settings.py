"""The plans that the settings of the strategy `planned` state: their objective, their swarms and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from velocitune_core.config import CompareRun, Mixture, Params, Swarm, WantedMixture
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.swarm_design import design_swarm
from velocitune_core.mixture_law.table import enough_runs
from velocitune_core.strategies import PLANNED


def mixture_of(params: Params, options: Mapping[str, Any]) -> Mixture:
    """Return the section `mixture` under the options of a planned strategy. Raises ValueError as `Mixture.changed`."""
    return params.mixture.changed(options) if options else params.mixture


def steering_options(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the options of `planned_course` in `steer` of a planned strategy; None if its weights are held."""
    steer = options.get("steer", False)
    if isinstance(steer, Mapping):
        return dict(steer)
    return {} if steer else None


def compared_mixture(params: Params, label: str, seed: int) -> Mixture:
    """Return the section `mixture` that a planned label of the comparison plans with under a seed.

    With `swarm_per_seed`, that seed draws the mixtures of its swarm, and orders the data of the runs.
    """
    run = compared_label(params, label)
    mixture = mixture_of(params, run.options)
    if not run.swarm_per_seed:
        return mixture
    return mixture.model_copy(update={"swarm": mixture.swarm.model_copy(update={"seeds": [seed]})})


def plan_name(params: Params, label: str, seed: int) -> str:
    """Return the name of the plan that a planned label holds under a seed: that of the label if all seeds share it."""
    return f"{label}-seed-{seed}" if compared_label(params, label).swarm_per_seed else label


def compared_plans(params: Params) -> dict[str, tuple[str, int]]:
    """Return the plans of a comparison by name, each with its label and the first seed that it is for."""
    assert params.compare is not None
    found: dict[str, tuple[str, int]] = {}
    for label, run in params.compare.runs.items():
        if run.strategy == PLANNED:
            for seed in params.compare.seeds:
                found.setdefault(plan_name(params, label, seed), (label, seed))
    return found


def compared_label(params: Params, label: str) -> CompareRun:
    """Return the settings of a label of the comparison."""
    assert params.compare is not None
    return params.compare.runs[label]


def unwatched_siblings(params: Params, comparing: bool) -> list[str]:
    """Return the siblings that swarms train and that are not in the folder of the model, which DVC watches."""
    options = [params.strategy.options] if params.strategy.name == PLANNED and not comparing else []
    if comparing and params.compare is not None:
        options = [run.options for run in params.compare.runs.values() if run.strategy == PLANNED]
    found = [mixture_of(params, each).swarm.model for each in options]
    return sorted({each for each in found if each is not None and not Path(each).is_relative_to(params.model.path)})


def swarm_size(swarm: Swarm, domains: int) -> int:
    """Return the runs of a swarm under each seed and fraction, at most if it is trained in rounds."""
    return enough_runs(domains) if swarm.runs is None else swarm.runs


def first_size(swarm: Swarm, domains: int) -> int:
    """Return the runs of the first round of a swarm under each seed and fraction."""
    most = swarm_size(swarm, domains)
    if swarm.rounds is None:
        return most
    return min(domains + 4, most) if swarm.rounds.first is None else swarm.rounds.first


def first_mixtures(swarm: Swarm, initial: Mapping[str, float], seed: int) -> list[Mapping[str, float]]:
    """Return w_0 and the mixtures that a seed draws, as many as the first round of a swarm has runs.

    Raises ObjectiveError as `design_swarm` does.
    """
    count = first_size(swarm, len(initial))
    return [initial, *design_swarm(initial, runs=count, seed=seed, min_share=swarm.min_share)[: count - 1]]


def stated_objective(wanted: WantedMixture, retained: Sequence[str], **known: Any) -> Objective:
    """Return an objective of the settings.

    Args:
        retained: sets that are retained if the settings name none.
        known: fields that the settings do not have, such as initial losses.
    """
    given: dict[str, Any] = wanted.model_dump() | ({"retained": list(retained)} if wanted.retained is None else {})
    return Objective(**given, **known)
