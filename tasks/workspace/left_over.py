"""Settings that remain when only a choice was changed, such as the options of the strategy before."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.workspace import paths
from velocitune_core.config import Params, parse_params
from velocitune_core.strategies import CHOICES, PLANNED, StrategyError, keeps_its_weights, user_options

OF_A_PLAN = {"objective", "swarm", "steer"}  # options of `planned`, which its class does not have


@dataclass(frozen=True)
class LeftOver:
    """A setting without a use."""

    place: tuple[str, ...]  # its keys, from the top
    notice: str


def left_over(tree: Any) -> list[LeftOver]:
    """Return what belongs to another strategy than the one chosen, for the pipeline and for every compared label.

    Options that no strategy has are not among them: they are mistakes.

    Args:
        tree: of params.yaml, which may be wrong in any way.
    """
    return [each for place, section, name in _strategies(tree) for each in _of_others(place, section, name)]


def without_left_over(tree: Any) -> tuple[Any, list[str]]:
    """Return settings without what is left over, and a notice for each."""
    found = left_over(tree)
    for each in found:
        tree = _without(tree, each.place)
    return tree, [each.notice for each in found]


def parse_used(tree: Any, origin: str) -> Params:
    """Return the settings of a tree, without `base` where another model is chosen: its values cannot conflict then.

    Raises ConfigError as `parse_params` does, also for what is wrong within a section `base` without a use.
    """
    model = _keys(_keys(tree).get("model")).get("path")
    another = isinstance(model, str) and Path(model) != paths.BASE_MODEL
    return parse_params(tree, origin, unused=["base"] if another and "base" in _keys(tree) else [])


def drop(tree: MutableMapping[str, Any], kept: Collection[str]) -> list[str]:
    """Remove what is left over from settings in place, and return a notice for each.

    Args:
        kept: dotted keys that were given with the choice; a mistake in them is not removed.
    """
    notices = []
    for each in left_over(tree):
        key = ".".join(each.place)
        if not any(f"{key}.".startswith(f"{given}.") or f"{given}.".startswith(f"{key}.") for given in kept):
            *outer, parent, last = each.place
            section: Any = tree
            for name in outer:
                section = section[name]
            left = {name: value for name, value in section[parent].items() if name != last}
            if last == "search":
                section[parent]["search"] = None  # DVC watches the key
            elif left:
                del section[parent][last]
            else:
                section[parent] = {}  # not an emptied one, which ruamel would write with its comments
            notices.append(f"{each.notice}; removed from {paths.PARAMS}")
    return notices


def _strategies(tree: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any], str]]:
    """Yield the place of every strategy's settings, these settings, and its name, as far as they can be read."""
    section = _keys(_keys(tree).get("strategy"))
    if isinstance(name := section.get("name"), str):
        yield ("strategy",), section, name
    for label, run in _keys(_keys(_keys(tree).get("compare")).get("runs")).items():
        if isinstance(name := _keys(run).get("strategy"), str):
            yield ("compare", "runs", label), run, name


def _of_others(place: tuple[str, ...], section: Mapping[str, Any], name: str) -> Iterator[LeftOver]:
    try:
        own = OF_A_PLAN if name == PLANNED else user_options(name)
    except StrategyError:  # reported where settings are checked
        return
    options = _keys(section.get("options"))
    for option in [each for each in options if each not in own]:
        if owners := [each for each in CHOICES if _has(each, option)]:
            yield LeftOver(
                (*place, "options", option),
                f"{'.'.join(place)}.options.{option} is an option of {', '.join(owners)}, and has no use under {name}",
            )
    if section.get("search") is not None and (name == PLANNED or keeps_its_weights(name)):
        yield LeftOver(
            (*place, "search"), f"{'.'.join(place)}.search has no use under {name}, which searches for no weights"
        )


def _has(name: str, option: Any) -> bool:
    return option in (OF_A_PLAN if name == PLANNED else user_options(name))


def _without(tree: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    """Return a tree without one key; what it does not change is shared."""
    first, *rest = place
    if not rest:
        return {key: value for key, value in tree.items() if key != first}
    return {**tree, first: _without(tree[first], tuple(rest))}


def _keys(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
