"""The registry of strategies, and building one from its name and options."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from velocitune_core.spelling import aside, with_nearest
from velocitune_core.strategies.base import MEASURED, Strategy, StrategyError
from velocitune_core.strategies.presets import PLANNED_COURSE, PRESETS

REGISTRY: dict[str, str] = {  # name → module:Class, imported on use
    "static": "velocitune_core.strategies.static:Static",
    "uniform": "velocitune_core.strategies.static:Uniform",
    "temperature": "velocitune_core.strategies.static:Temperature",
    "velocitune": "velocitune_core.strategies.velocitune:Velocitune",
    "dbl": "velocitune_core.strategies.dbl:DynamicBatchLoading",
    "doremi": "velocitune_core.strategies.doremi:DoReMi",
    "odm": "velocitune_core.strategies.odm:OnlineDataMixing",
    PLANNED_COURSE: "velocitune_core.strategies.planned_course:PlannedCourse",
    "ado": "velocitune_core.strategies.ado:AdaptiveDataOptimization",
}
CHOICES = sorted({*REGISTRY, *PRESETS} - {PLANNED_COURSE})  # of a user; a plan chooses the other one


def resolve_preset(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return strategy and options of a preset, overridden by the given options; any other name unchanged."""
    if name not in PRESETS:
        return name, dict(options)
    preset = PRESETS[name]
    return preset.strategy, {**preset.options, **options}


def search_share(name: str) -> float | None:
    """Return the default length of a strategy's search run, as a share of the token budget.

    None: no search run, the strategy updates weights in the main run. A strategy that needs a reference model always
    searches, for a whole budget.
    """
    if name in PRESETS:
        return PRESETS[name].search
    return 1.0 if strategy_class(name).needs_reference else None


def strategy_class(name: str) -> type[Strategy]:
    """Return the class of a strategy in the registry, of a preset, or of a user's `module:Class`.

    A user's module is searched for in the working folder, too. Raises StrategyError for an unknown name, a module that
    cannot be imported, or a class that is no Strategy.
    """
    address = REGISTRY.get(resolve_preset(name, {})[0], name)
    if ":" not in address:
        raise StrategyError(
            f"strategy {name!r} is unknown{aside(name, CHOICES)}; choose one of {', '.join(CHOICES)}, or name a class "
            "of your own as module:Class"
        )
    module, _, attribute = address.partition(":")
    if address == name and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise StrategyError(f"strategy {name!r} cannot be imported: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise StrategyError(f"strategy {name!r} is no subclass of velocitune_core.strategies.Strategy")
    return found


def strategy_modules(name: str) -> dict[str, Path]:
    """Return the file of each module that defines a strategy's class or a base class of it, by the module's name.

    The class's own module is the first. Modules of the standard library, and of Strategy itself, are left out.
    """
    bases = [each for each in strategy_class(name).__mro__ if each not in Strategy.__mro__]
    modules = dict.fromkeys(each.__module__ for each in bases)
    own = [each for each in modules if each.partition(".")[0] not in sys.stdlib_module_names]
    return {each: Path(str(sys.modules[each].__file__)) for each in own}


def user_options(name: str) -> set[str]:
    """Return the options of a strategy that the user sets."""
    return set(inspect.signature(strategy_class(name)).parameters) - {"initial_weights"} - MEASURED


def updates_after_evaluations(name: str) -> bool:
    """Return whether a strategy changes the domain weights by held-out losses, after each evaluation."""
    return strategy_class(name).update is not Strategy.update


def keeps_its_weights(name: str) -> bool:
    """Return whether a strategy never changes the domain weights that it begins with."""
    found = strategy_class(name)
    return found.update is Strategy.update and found.observe_batch is Strategy.observe_batch


def measured_options(name: str) -> set[str]:
    """Return the options of a strategy whose values the pipeline measures."""
    return set(inspect.signature(strategy_class(name)).parameters) & MEASURED


def make_strategy(name: str, *, initial_weights: Mapping[str, float], **options: Any) -> Strategy:
    """Build a strategy from its name, initial domain weights and options.

    Raises StrategyError for an unknown name or option, a missing option, or an invalid value.
    """
    parameters = inspect.signature(strategy_class(name)).parameters
    if unknown := sorted(set(options) - set(parameters)):
        own = sorted(user_options(name))
        raise StrategyError(
            f"strategy {name!r} has no option {with_nearest(unknown, own)}; it has {', '.join(own) or 'none'}"
        )
    _, options = resolve_preset(name, options)
    needed = {key for key, each in parameters.items() if each.default is inspect.Parameter.empty}
    if missing := sorted(needed - set(options) - {"initial_weights"}):
        raise StrategyError(f"strategy {name!r} needs the options {missing}")
    try:
        return strategy_class(name)(initial_weights=initial_weights, **options)
    except TypeError as error:
        raise StrategyError(f"strategy {name!r}: {error}") from None


def check_strategy(name: str, options: Mapping[str, Any], domains: list[str]) -> list[str]:
    """Return the problems of a strategy's settings that do not depend on measured losses."""
    placeholders = {"initial_loss": 2.0, "target_loss": 1.0, "domain_tokens": 1.0}
    try:
        measured = {each: dict.fromkeys(domains, placeholders[each]) for each in measured_options(name)}
        make_strategy(name, initial_weights=dict.fromkeys(domains, 1.0), **measured, **options)
    except StrategyError as error:
        return [f"strategy: {error}"]
    return []
