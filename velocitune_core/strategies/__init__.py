"""Strategies by name: what turns observed losses into domain weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from velocitune_core.strategies.base import Observation, Strategy, StrategyError
from velocitune_core.strategies.constant import Static, Temperature, Uniform
from velocitune_core.strategies.velocitune import Velocitune

REGISTRY: dict[str, type[Strategy]] = {
    "static": Static,
    "uniform": Uniform,
    "temperature": Temperature,
    "velocitune": Velocitune,
}

__all__ = ["REGISTRY", "Observation", "Strategy", "StrategyError", "check_strategy", "make_strategy", "strategy_class"]


def strategy_class(name: str) -> type[Strategy]:
    """The strategy of that name. Raises StrategyError that lists the known ones."""
    if name not in REGISTRY:
        raise StrategyError(f"strategy {name!r} is unknown; choose one of {sorted(REGISTRY)}")
    return REGISTRY[name]


def user_options(name: str) -> set[str]:
    """Options of a strategy that are the user's to set."""
    cls = strategy_class(name)
    return set(inspect.signature(cls).parameters) - {"initial_weights"} - cls.requires


def make_strategy(name: str, *, initial_weights: Mapping[str, float], **options: Any) -> Strategy:
    """Build a strategy. Raises StrategyError for an unknown name or option, or a value that cannot work."""
    cls = strategy_class(name)
    if unknown := sorted(set(options) - user_options(name) - cls.requires):
        raise StrategyError(f"strategy {name!r} has no option {unknown}; it has {sorted(user_options(name))}")
    if missing := sorted(cls.requires - set(options)):
        raise StrategyError(f"strategy {name!r} needs {missing}")
    try:
        return cls(initial_weights=initial_weights, **options)
    except TypeError as error:
        raise StrategyError(f"strategy {name!r}: {error}") from None


def check_strategy(name: str, options: Mapping[str, Any], domains: list[str]) -> list[str]:
    """Problems with a strategy's settings that can be told before anything was measured."""
    try:
        measured = {each: dict.fromkeys(domains, loss) for each, loss in (("initial_loss", 2.0), ("target_loss", 1.0))}
        needed = {each: measured[each] for each in strategy_class(name).requires}
        make_strategy(name, initial_weights=dict.fromkeys(domains, 1.0), **needed, **options)
    except StrategyError as error:
        return [f"strategy: {error}"]
    return []
