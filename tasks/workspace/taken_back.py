"""Overrides of a run taken out of a params.yaml that was edited meanwhile: line by line, and checked key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.workspace.yaml_lines import lines_taken_back
from velocitune_core.config import ConfigError, parse_yaml

REMOVED = object()  # value of a key that is not there
Settings = dict[str, Any]  # by dotted key


def without_overrides(before: str, overridden: str, now: str) -> tuple[str, Settings]:
    """Return an edited file without the overrides that are in it as they were written, and those that stay.

    What was edited stays as it is. So do overrides whose lines are not found again, and all in a file that is no YAML.

    Args:
        before: the file before the overrides.
        overridden: the file with them, and nothing edited.
        now: the edited file.
    """
    old, written = _settings(before), _settings(overridden)
    held, text = _settings(now), lines_taken_back(before, overridden, now)
    found = _settings(text)
    if old is None or written is None:
        return now, {}
    changed = _different(old, written)
    if held is None:
        return now, {key: written.get(key, REMOVED) for key in changed}
    unedited = [key for key in changed if key not in _different(held, written)]
    if found is None or any(
        key not in unedited or found.get(key, REMOVED) != old.get(key, REMOVED) for key in _different(held, found)
    ):
        found, text = held, now
    stay = [key for key in unedited if key in _different(found, old)]
    return text, {key: written.get(key, REMOVED) for key in stay}


def _different(one: Settings, other: Settings) -> list[str]:
    return [key for key in {**one, **other} if one.get(key, REMOVED) != other.get(key, REMOVED)]


def _settings(text: str) -> Settings | None:
    try:
        return dict(_flat(parse_yaml(text, "params.yaml"), ""))
    except ConfigError:
        return None


def _flat(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping) or not tree:
        yield key, tree
        return
    for name, value in tree.items():
        yield from _flat(value, f"{key}.{name}" if key else str(name))
