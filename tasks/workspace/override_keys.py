"""Overrides by dotted key of params.yaml: a mapping that is given for a section stands for its keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from velocitune_core.config import RENAMED, ConfigError, Params, Source
from velocitune_core.config.schema import Place, is_section, walk

_AS_A_WHOLE = Source  # its keys name one place together: a revision is that of its path


def dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides with a dotted key for each setting: `{training: {seed: 2}}` is `training.seed`.

    Other mappings stay whole: those whose keys a user chooses, such as strategy.options, and sources of domains. Raises
    ConfigError for a key that is given twice, with two values.
    """
    found: dict[str, Any] = {}
    for given, nested in overrides.items():
        for key, value in _settings(given, nested):
            if key in found and found[key] != value:
                raise ConfigError(f"{key}: given twice, as {found[key]!r} and {value!r}; give it once")
            found[key] = value
    return found


def set_override(tree: Any, key: str, value: Any) -> str | None:
    """Set a dotted key in a tree of settings; an empty mapping changes nothing in a section that is there.

    Returns a notice if it replaces domains, or labels of a comparison, that are not in the value.
    """
    *sections, last = key.split(".")
    place = tree
    for section in sections:
        if not isinstance(place.get(section), Mapping):
            place[section] = {}
        place = place[section]
    before = place.get(last)
    if isinstance(before, Mapping) and value == {} and _is_section(_place(key)):
        return None
    place[last] = value
    return _notice_of_gone(key, before, value)


def has_unknown_key(overrides: Mapping[str, Any]) -> bool:
    """Return whether one of the dotted keys is none of params.yaml; a former one, which has a message, is not meant."""
    return any(
        not place.kinds and _is_section(above)
        for key in overrides
        if key not in RENAMED
        for above, place in pairwise(walk(Params, key.split(".")))
    )


def _settings(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    place = _place(key)
    if isinstance(value, Mapping) and value and _is_section(place) and _AS_A_WHOLE not in place.kinds:
        for name, each in value.items():
            yield from _settings(f"{key}.{name}", each)
    else:
        yield key, value


def _notice_of_gone(key: str, before: Any, value: Any) -> str | None:
    *_, place, within = walk(Params, [*key.split("."), "any"])
    if not isinstance(before, Mapping) or not isinstance(value, Mapping) or _is_section(place):
        return None
    gone = [str(name) for name in before if name not in value]
    if not gone or not _is_section(within):
        return None
    return f"{key}: replaced as a whole, so without {', '.join(gone)}; to change one of them, give {key}.{gone[0]}"


def _place(key: str) -> Place:
    *_, place = walk(Params, key.split("."))
    return place


def _is_section(place: Place) -> bool:
    return any(map(is_section, place.kinds))
