"""Strategies turn observed losses into domain weights; `make_strategy` builds one by name."""

from velocitune_core.strategies.base import (
    MEASURED,
    BatchObservation,
    Observation,
    Strategy,
    StrategyError,
)
from velocitune_core.strategies.presets import PLANNED, PLANNED_COURSE, PRESETS
from velocitune_core.strategies.registry import (
    CHOICES,
    REGISTRY,
    check_strategy,
    keeps_its_weights,
    make_strategy,
    measured_options,
    resolve_preset,
    search_share,
    strategy_class,
    strategy_modules,
    updates_after_evaluations,
    user_options,
)

__all__ = [
    "CHOICES",
    "MEASURED",
    "PLANNED",
    "PLANNED_COURSE",
    "PRESETS",
    "REGISTRY",
    "BatchObservation",
    "Observation",
    "Strategy",
    "StrategyError",
    "check_strategy",
    "keeps_its_weights",
    "make_strategy",
    "measured_options",
    "resolve_preset",
    "search_share",
    "strategy_class",
    "strategy_modules",
    "updates_after_evaluations",
    "user_options",
]
