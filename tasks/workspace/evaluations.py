"""How often a run evaluates and updates its domain weights: a warning if that is too seldom, or costs too much."""

from __future__ import annotations

import math

from tasks.workspace.packed_data import packed_manifest
from tasks.workspace.planned_settings import steering_options
from tasks.workspace.said_once import warn_once
from velocitune_core.config import Params
from velocitune_core.contracts import Manifest
from velocitune_core.plan.cost import PASSES_OF_A_STEP
from velocitune_core.strategies import PLANNED, PLANNED_COURSE, updates_after_evaluations
from velocitune_core.style.text import counted, percent

FEW_UPDATES = 4  # in the embedded default, three bring the weights within 6 % of the distance that seven do
SHORT_RUN = 1000  # steps, as of a first try, which costs little whatever its shares are
LARGE_SHARE, USUAL_SHARE = 0.1, 0.05  # of evaluations, in operations of the steps; the embedded default has 0.047
LEAST_SEQUENCES = 8  # held out per domain; with fewer, what is found is chosen by their noise


def weight_updates(params: Params, steps: int) -> int | None:
    """Return how often a run of so many steps updates the weights; None if its strategy does so without evaluations."""
    steered = params.strategy.name == PLANNED and steering_options(params.strategy.options) is not None
    if not updates_after_evaluations(PLANNED_COURSE if steered else params.strategy.name):
        return None
    return params.evaluation.in_run(steps).updates(steps)


def evaluation_share(params: Params, steps: int, manifest: Manifest | None = None) -> float:
    """Return the operations of all evaluations of a run of so many steps, over those of the steps.

    Args:
        manifest: of the packed data; None: every domain has `data.held_out_sequences`, at most.
    """
    evaluations = math.ceil(steps / params.evaluation.in_run(steps).every_steps)
    trained = steps * params.training.batch_sequences
    return evaluations * _held_out(params, manifest) / (PASSES_OF_A_STEP * trained)


def evaluation_warning(params: Params, steps: int, manifest: Manifest | None = None) -> str | None:
    """Return a warning if a run of so many steps evaluates too seldom to move the weights, or at a large cost."""
    return few_updates(params, steps) or costly_evaluations(params, steps, manifest)


def warn_of_evaluations(params: Params) -> None:
    """Log the warning of the main run once, if its length is known: from the budget, or from packed data."""
    training = params.training
    manifest, _ = packed_manifest(params)
    tokens = training.token_budget
    if tokens is None:
        if manifest is None:
            return  # the stage `prepare` warns
        tokens = sum(domain.train.tokens for domain in manifest.domains.values())
    steps = tokens // params.data.sequence_length // training.batch_sequences
    if steps and (warning := evaluation_warning(params, steps, manifest)):
        warn_once(warning)


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


def costly_evaluations(params: Params, steps: int, manifest: Manifest | None = None) -> str | None:
    """Return a warning if evaluations add more than LARGE_SHARE to a run that is not short, else None."""
    share = evaluation_share(params, steps, manifest)
    if share <= LARGE_SHARE or steps < SHORT_RUN:
        return None
    every, at_most = params.evaluation.in_run(steps).every_steps, "" if manifest else "up to "
    return (
        f"evaluations take {percent(share, 0)} as many operations as the training steps: "
        f"{at_most}{counted(_held_out(params, manifest), 'held-out sequence')} every {counted(every, 'step')} of "
        f"{counted(params.training.batch_sequences, 'sequence')}; {_what_helps(params, steps, manifest)}"
    )


def _what_helps(params: Params, steps: int, manifest: Manifest | None) -> str:
    """Return settings that bring the share to about USUAL_SHARE, with enough sequences and evaluations left."""
    ratio = USUAL_SHARE / evaluation_share(params, steps, manifest)
    fewer = math.floor(ratio * _held_out(params, manifest) / len(params.training_domains))
    seldom = math.ceil(params.evaluation.in_run(steps).every_steps / ratio)
    settings = [f"data.held_out_sequences: {fewer}"] if fewer >= LEAST_SEQUENCES else []
    if (steps - 1) // seldom >= FEW_UPDATES:
        settings.append(f"evaluation.every_steps: {seldom}")
    if settings:
        return f"about {percent(USUAL_SHARE, 0)} with {' or '.join(settings)}"
    return "a longer run with evaluation.every_steps: auto, or larger batches, would bring it down"


def _held_out(params: Params, manifest: Manifest | None) -> int:
    if manifest is None:
        return len(params.training_domains) * params.data.held_out_sequences
    return sum(domain.held_out.sequences for domain in manifest.domains.values())
