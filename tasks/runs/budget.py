"""Token budgets: how many optimizer steps a run takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from velocitune_core.config import ConfigError, Params, Training
from velocitune_core.contracts import Manifest

logger = logging.getLogger(__name__)


def sizes_of(manifest: Manifest) -> dict[str, int]:
    """Return the training sequences of each domain."""
    return {name: domain.train.sequences for name, domain in manifest.domains.items()}


def steps_for(training: Training, sizes: Mapping[str, int], sequence_length: int) -> int:
    """Return the optimizer steps in the token budget; without one, in one epoch of all domains.

    Args:
        sizes: training sequences by domain.

    Raises ConfigError if the budget is less than a step, or more than `max_epochs` lets the domains give.
    """
    sequences = sum(sizes.values())
    if training.token_budget is not None:
        sequences = training.token_budget // sequence_length
    steps = sequences // training.batch_sequences
    if steps < 1:
        raise ConfigError(
            f"token_budget: {sequences} sequences are less than one step of {training.batch_sequences}; "
            "raise it, or lower batch_sequences"
        )
    if training.max_epochs is not None and steps * training.batch_sequences > training.max_epochs * sum(sizes.values()):
        raise ConfigError(
            f"max_epochs: {training.max_epochs} epochs of {sum(sizes.values())} sequences are less than the budget of "
            f"{sequences}; raise max_epochs or lower token_budget"
        )
    return steps


def pipeline_steps(params: Params, manifest: Manifest) -> int:
    """Return the optimizer steps of the whole run. Raises ConfigError as `steps_for` does."""
    return steps_for(params.training, sizes_of(manifest), manifest.sequence_length)


def token_budget(params: Params, manifest: Manifest) -> int:
    """Return the tokens of the whole run: D at which the scaling laws are read."""
    return pipeline_steps(params, manifest) * params.training.batch_sequences * manifest.sequence_length


def check_budget(params: Params, manifest: Manifest) -> None:
    """Log the length of the run. Raises ConfigError, before any run, for a budget that cannot be met."""
    steps = pipeline_steps(params, manifest)
    logger.info("token budget: %s tokens in %d steps", f"{token_budget(params, manifest):,}", steps)
