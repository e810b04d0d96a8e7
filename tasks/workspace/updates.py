"""How often a run updates its domain weights, and a warning if that is too seldom to move them."""

from __future__ import annotations

from tasks.workspace.packed_data import packed_manifest
from tasks.workspace.planned_settings import steering_options
from tasks.workspace.said_once import warn_once
from velocitune_core.config import Params
from velocitune_core.strategies import PLANNED, PLANNED_COURSE, updates_after_evaluations
from velocitune_core.style.text import counted

FEW_UPDATES = 4  # in the embedded default, three bring the weights within 6 % of the distance that seven do


def weight_updates(params: Params, steps: int) -> int | None:
    """Return how often a run of so many steps updates the weights; None if its strategy does so without evaluations."""
    steered = params.strategy.name == PLANNED and steering_options(params.strategy.options) is not None
    if not updates_after_evaluations(PLANNED_COURSE if steered else params.strategy.name):
        return None
    return params.evaluation.in_run(steps).updates(steps)


def few_updates(params: Params, steps: int) -> str | None:
    """Return a warning if a run of so many steps has fewer than FEW_UPDATES updates, else None."""
    updates = weight_updates(params, steps)
    if updates is None or updates >= FEW_UPDATES:
        return None
    how_often = f"{counted(updates, 'update') if updates else 'no updates'} of the domain weights"
    return (
        f"evaluation.every_steps: {params.evaluation.every_steps} gives {how_often} in {steps} steps, "
        f"{'so the weights never move' if not updates else 'too few to move them far'}; lower it, set it to auto, or "
        "raise training.token_budget"
    )


def warn_of_few_updates(params: Params) -> None:
    """Log `few_updates` of the main run once, if its length is known: from the budget, or from packed data."""
    training = params.training
    tokens = training.token_budget
    if tokens is None:
        manifest, _ = packed_manifest(params)
        if manifest is None:
            return  # the stage `prepare` warns
        tokens = sum(domain.train.tokens for domain in manifest.domains.values())
    steps = tokens // params.data.sequence_length // training.batch_sequences
    if steps and (warning := few_updates(params, steps)):
        warn_once(warning)
