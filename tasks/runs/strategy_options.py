"""Options of a strategy: those that the user sets, completed by what the pipeline measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from tasks.workspace import paths
from velocitune_core.config import ConfigError, StrategyConfig
from velocitune_core.contracts import InitialLosses, Manifest
from velocitune_core.strategies import PLANNED, measured_options, resolve_preset, search_share


def complete_strategy(
    strategy: StrategyConfig, manifest: Manifest, initial: InitialLosses, targets: Mapping[str, float]
) -> StrategyConfig:
    """Return a strategy with the measured options it needs, its preset written out.

    Args:
        targets: target loss by domain, nats per token.

    Raises ConfigError naming domains that lack a target.
    """
    if strategy.name == PLANNED:  # its options say how the plan is made; the run holds the weights of the plan
        return StrategyConfig(name=resolve_preset(PLANNED, {})[0])
    measured: dict[str, Mapping[str, float]] = {
        "initial_loss": initial.losses,
        "target_loss": targets,
        "domain_tokens": {name: domain.train.tokens for name, domain in manifest.domains.items()},
    }
    needed = measured_options(strategy.name)
    missing = sorted(set(manifest.domains) - set(targets))
    if missing and "target_loss" in needed:
        raise ConfigError(f"{paths.TARGETS}: no target for {missing}; add them, or run the stage `targets` again")
    name, options = resolve_preset(strategy.name, strategy.options)
    return StrategyConfig(
        name=name,
        options=options | {key: dict(measured[key]) for key in sorted(needed)},
        search=strategy.search or search_share(strategy.name),
    )


def ablated_targets(
    kind: str, initial: Mapping[str, float], targets: Mapping[str, float], seed: int
) -> Mapping[str, float]:
    """Return the targets of the paper's ablations: as fitted, zero, or random between zero and the initial loss."""
    if kind == "fitted":
        return targets
    if kind == "zero":
        return dict.fromkeys(targets, 0.0)
    return {name: initial[name] * factor for name, factor in random_factors(targets, seed).items()}


def random_factors(domains: Iterable[str], seed: int) -> dict[str, float]:
    """Return the random targets of a seed as shares of the initial loss, in [0, 1), by domain."""
    return {name: _uniform(f"{seed} random target of {name}") for name in domains}


def _uniform(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") / 2**64
