"""Token budgets: how many optimizer steps a run takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from tasks.workspace import paths
from tasks.workspace.evaluations import evaluation_warning, weight_updates
from tasks.workspace.planned_checks import sized_problems
from tasks.workspace.planned_settings import mixture_of
from tasks.workspace.said_once import warn_once
from velocitune_core import mixture
from velocitune_core.config import ConfigError, Params, Training
from velocitune_core.contracts import Manifest
from velocitune_core.mixture import domain_limits
from velocitune_core.strategies import PLANNED, search_share
from velocitune_core.style.text import counted
from velocitune_core.train.schedule import longest_warmup

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
        raise ConfigError(_less_than_a_step(training, sequences, sequence_length, section))
    most = most_steps(training, sizes, weights)
    if most is not None and steps > most:
        used = sum(size for name, size in sizes.items() if weights is None or weights[name] > 0)
        raise ConfigError(
            f"{section}.max_epochs: {training.max_epochs} epochs of {used} sequences are less than the budget of "
            f"{sequences}; raise it, or lower {section}.token_budget"
        )
    return steps


def _less_than_a_step(training: Training, sequences: int, sequence_length: int, section: str) -> str:
    batch, budget = training.batch_sequences, training.token_budget
    short = f"less than one step of {batch}"
    if budget is None:
        have = f"one epoch has {counted(sequences, 'sequence')}, {short}"
        return f"{section}.batch_sequences: {batch}, and {have}; lower it, or add text"
    fewest = f"at least {batch * sequence_length}"
    have = f"{counted(budget, 'token')} make {counted(sequences, 'sequence')} of {sequence_length}, {short}"
    return f"{section}.token_budget: {have}; give {fewest}, or lower {section}.batch_sequences"


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
    if params.strategy.name == PLANNED:
        fractions = mixture_of(params, params.strategy.options).swarm.fractions
        runs |= {f"the swarm of {fraction:g}": part_of(steps, fraction) for fraction in fractions}
    check_warmup("training", params.training, {**runs, "the training": steps})


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
