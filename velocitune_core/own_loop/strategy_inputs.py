"""From the arguments of VelocityReweighter to its strategy: problems are named in the words of those arguments."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Hashable, Mapping
from typing import Any

from velocitune_core.own_loop.checks import ReweighterError, by_group, real_number, whole_number
from velocitune_core.strategies import Strategy, StrategyError, make_strategy, strategy_class

logger = logging.getLogger(__name__)

LOSSES = {  # option of a strategy → argument of VelocityReweighter, and what to give
    "initial_loss": ("initial_losses", "give the held-out loss of every group before the first step"),
    "target_loss": ("target_losses", "give the loss at which each group needs no more"),
}


def strategy_of(
    name: str,
    initial_weights: Mapping[Hashable, float],
    losses: Mapping[str, Mapping[Hashable, float] | None],
    options: Mapping[str, Any],
) -> Strategy:
    """Build a strategy.

    Args:
        name: of the strategy.
        initial_weights: w_0 by group, relative.
        losses: by group, under the names of LOSSES; None: not given.
        options: of the strategy.

    Raises ReweighterError for a weight, loss or option that is no number, losses that are missing, and losses of no
    group; StrategyError for an unknown strategy, and options or weights that it refuses.
    """
    if not isinstance(name, str):
        raise ReweighterError(f"strategy {name!r} must be a name, or a class of your own as 'module:Class'")
    if not isinstance(options, Mapping):
        raise ReweighterError(f"options {options!r} must be a mapping from option to value")
    weights = {
        group: real_number(f"initial_weights[{group!r}]", weight, ReweighterError, "give a relative weight, or 0")
        for group, weight in by_group(initial_weights, "initial_weights", ReweighterError).items()
    }
    parameters = inspect.signature(strategy_class(name)).parameters
    given = {option: each for option, each in losses.items() if each is not None}
    if twice := sorted(set(given) & set(options)):
        raise ReweighterError(f"options have {twice}, which initial_losses or target_losses give, too; give them once")
    if "target_loss" in given and "target_loss" not in parameters:
        logger.warning(f"strategy {name!r} takes no targets; target_losses is ignored")
    targets = by_group(given.get("target_loss", {}), "target_losses", ReweighterError)
    if unknown := sorted(set(targets) - set(weights)):
        raise ReweighterError(f"target_losses has groups {unknown} that initial_weights lacks: {[*weights]}")
    given = {**options, **{option: each for option, each in given.items() if option in parameters}}
    for option, (argument, meaning) in LOSSES.items():
        if option in parameters and option not in given and parameters[option].default is inspect.Parameter.empty:
            raise ReweighterError(f"strategy {name!r} needs {argument}: {meaning}")
    checked = {
        option: _checked(option, value, parameters.get(option), list(weights)) for option, value in given.items()
    }
    try:
        return make_strategy(name, initial_weights=weights, **checked)
    except StrategyError as error:  # of the pipeline, whose targets are in a file
        raise StrategyError(str(error).replace("in targets.json", "in target_losses")) from None


def _checked(option: str, value: Any, parameter: inspect.Parameter | None, groups: list[str]) -> Any:
    """Return the value of an option: with the names of the groups if it is by group, checked where it is a number."""
    field = LOSSES[option][0] if option in LOSSES else f"options[{option!r}]"
    if option in LOSSES or (option == "domain_tokens" and value is not None):
        value = by_group(value, field, ReweighterError)
        if missing := [group for group in groups if group not in value]:
            raise ReweighterError(f"{field} lacks groups {missing}; it has {sorted(value)}")
        return {
            group: real_number(
                f"{field}[{group!r}]", value[group], ReweighterError, "measure it, or leave the group out"
            )
            for group in groups
        }
    if isinstance(value, Mapping):
        named = by_group(value, field, ReweighterError)
        return named if set(named) >= set(groups) else value
    return value if parameter is None else _scalar(field, value, parameter)


def _scalar(field: str, value: Any, parameter: inspect.Parameter) -> Any:
    """Return the value of an option that its annotation says is a number or a truth value; any other unchanged."""
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    kinds = set(text.split(" | "))
    fix = f"leave it out for {parameter.default!r}"
    if not kinds <= {"bool", "int", "float", "None"} or (value is None and "None" in kinds):
        return value
    if "bool" in kinds:
        if not isinstance(value, bool):
            raise ReweighterError(f"{field} {value!r} must be True or False; {fix}")
        return value
    if "float" in kinds:
        return real_number(field, value, ReweighterError, fix, finite=False)
    return whole_number(field, value, ReweighterError, fix=fix)
