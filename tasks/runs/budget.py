"""Token budgets: how many optimizer steps a run takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from velocitune_core.config import ConfigError, Params, Training
from velocitune_core.contracts import Manifest
from velocitune_core.strategies import search_share
from velocitune_core.train.schedule import longest_warmup

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


def part_of(steps: int, fraction: float) -> int:
    """Return the steps of a run on a fraction of the budget."""
    return max(1, round(fraction * steps))


def check_warmup(section: str, training: Training, runs: Mapping[str, int]) -> None:
    """Raise ConfigError naming the runs in which `warmup_steps` does not end before the decay of the learning rate.

    Args:
        section: of params.yaml, that holds `schedule`.
        runs: total steps by name of the run.
    """
    schedule = training.schedule
    if (warmup := schedule.warmup_steps) is None:
        return
    limits = {run: longest_warmup(schedule, steps) for run, steps in runs.items()}
    short = [f"{run} ({runs[run]} steps: at most {limit})" for run, limit in limits.items() if warmup > limit]
    if short:
        end = "ends after the decay begins" if schedule.kind == "wsd" else "does not end"
        raise ConfigError(
            f"{section}.schedule.warmup_steps: a warm-up of {warmup} steps {end} in {', '.join(short)}; set it to at "
            f"most {min(limits.values())}, set warmup_fraction instead, or make these runs longer"
        )


def check_warmups(params: Params, steps: int) -> None:
    """Check the warm-up of the pipeline's runs, all before the first of them. Raises ConfigError as `check_warmup`."""
    runs = {f"the proxies of {fraction:g}": part_of(steps, fraction) for fraction in params.proxies.fractions}
    if share := params.strategy.search or search_share(params.strategy.name):
        runs["the search"] = part_of(steps, share)
    check_warmup("training", params.training, {**runs, "the training": steps})


def check_budget(params: Params, manifest: Manifest) -> None:
    """Log the length of the run. Raises ConfigError, before any run, for a budget or warm-up that cannot be met."""
    steps = pipeline_steps(params, manifest)
    check_warmups(params, steps)
    logger.info("token budget: %s tokens in %d steps", f"{token_budget(params, manifest):,}", steps)
