"""Token budgets: how many optimizer steps a run takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from tasks.workspace import paths
from tasks.workspace.evaluations import evaluation_warning, weight_updates
from tasks.workspace.planned_checks import sized_problems
from tasks.workspace.run_lengths import less_than_a_step, part_of, planned_runs, warmup_problem
from tasks.workspace.said_once import warn_once
from velocitune_core import mixture
from velocitune_core.config import ConfigError, Params, Training
from velocitune_core.contracts import Manifest
from velocitune_core.mixture import domain_limits
from velocitune_core.style.text import counted

logger = logging.getLogger(__name__)


def sizes_of(manifest: Manifest) -> dict[str, int]:
    """Return the training sequences of each domain."""
    return {name: domain.train.sequences for name, domain in manifest.domains.items()}


def steps_for(
    training: Training,
    sizes: Mapping[str, int],
    sequence_length: int,
    weights: Mapping[str, float] | None = None,
    section: str = "training",
) -> int:
    """Return the optimizer steps in the token budget; without one, in one epoch of all domains.

    Args:
        sizes: training sequences by domain.
        weights: initial domain weights; a domain of weight 0 gives nothing. None: every domain has one.
        section: where the settings are, for messages.

    Raises ConfigError if the budget is less than a step, or more than `max_epochs` lets the domains give.
    """
    sequences = sum(sizes.values())
    if training.token_budget is not None:
        sequences = training.token_budget // sequence_length
    steps = sequences // training.batch_sequences
    if steps < 1:
        raise ConfigError(less_than_a_step(training, sequences, sequence_length, section))
    most = most_steps(training, sizes, weights)
    if most is not None and steps > most:
        used = sum(size for name, size in sizes.items() if weights is None or weights[name] > 0)
        raise ConfigError(
            f"{section}.max_epochs: {training.max_epochs} epochs of {used} sequences are less than the budget of "
            f"{sequences}; raise it, or lower {section}.token_budget"
        )
    return steps


def most_steps(
    training: Training, sizes: Mapping[str, int], weights: Mapping[str, float] | None = None, fraction: float = 1.0
) -> int | None:
    """Return the steps that `max_epochs` of a fraction of the domains can give; None: any number."""
    if training.max_epochs is None:
        return None
    used = [size for name, size in sizes.items() if weights is None or weights[name] > 0]
    _, limits = domain_limits(used, fraction, training.max_epochs)
    return int(limits.sum()) // training.batch_sequences


def share_of_steps(
    training: Training, sizes: Mapping[str, int], weights: Mapping[str, float], fraction: float, steps: int
) -> int:
    """Return a fraction of `steps`, at least one, and no more than `max_epochs` of that fraction of the data can give.

    Raises ConfigError if that is less than one step.
    """
    share = part_of(steps, fraction)
    most = most_steps(training, sizes, weights, fraction)
    if most is None:
        return share
    if most < 1:
        raise ConfigError(
            f"max_epochs: {training.max_epochs} epochs of the fraction {fraction:g} of the domains are less than one "
            f"step of {training.batch_sequences} sequences; raise max_epochs or the fraction, or lower batch_sequences"
        )
    return min(share, most)


def pipeline_steps(params: Params, manifest: Manifest) -> int:
    """Return the optimizer steps of the whole run. Raises ConfigError as `steps_for` does."""
    sizes = sizes_of(manifest)
    weights = mixture.initial_domain_weights(params.mixture.initial_domain_weights, sizes)
    return steps_for(params.training, sizes, manifest.sequence_length, weights)


def token_budget(params: Params, manifest: Manifest) -> int:
    """Return the tokens of the whole run: D at which the scaling laws are read."""
    return pipeline_steps(params, manifest) * params.training.batch_sequences * manifest.sequence_length


def check_warmup(section: str, training: Training, runs: Mapping[str, int]) -> None:
    """Raise ConfigError naming the runs in which `warmup_steps` does not end before the decay of the learning rate."""
    if problem := warmup_problem(section, training, runs):
        raise ConfigError(problem)


def check_warmups(params: Params, steps: int) -> None:
    """Check the warm-up of the pipeline's runs, all before the first of them. Raises ConfigError as `check_warmup`."""
    check_warmup("training", params.training, planned_runs(params, steps))


def check_planned(params: Params, manifest: Manifest) -> None:
    """Raise ConfigError for plans whose objective no mixture can fulfil, as far as sizes and drawn mixtures show it."""
    weights = mixture.initial_domain_weights(params.mixture.initial_domain_weights, sizes_of(manifest))
    tokens = {name: float(domain.train.tokens) for name, domain in manifest.domains.items()}
    if problems := sized_problems(params, weights, tokens, float(token_budget(params, manifest))):
        raise ConfigError(f"{paths.PARAMS}:\n" + "\n".join(f"  {problem}" for problem in problems))


def check_budget(params: Params, manifest: Manifest) -> None:
    """Log the length of the run. Raises ConfigError, before any run, for a length that cannot work."""
    steps, sizes = pipeline_steps(params, manifest), sizes_of(manifest)
    check_warmups(params, steps)
    check_planned(params, manifest)
    weights = mixture.initial_domain_weights(params.mixture.initial_domain_weights, sizes)
    for fraction in params.proxies.fractions:
        share_of_steps(params.training, sizes, weights, fraction, steps)
    updates = weight_updates(params, steps)
    often = "" if updates is None else f", {counted(updates, 'update')} of the domain weights"
    logger.info("token budget: %s tokens in %d steps%s", f"{token_budget(params, manifest):,}", steps, often)
    if warning := evaluation_warning(params, steps, manifest):
        warn_once(warning)
