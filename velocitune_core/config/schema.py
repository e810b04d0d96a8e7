"""Which types the schema of the settings has at a place, given by the keys that lead to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from velocitune_core.config.base import KEYS, WORD

_ADDED = {"[key]", WORD, KEYS}  # parts of a place that are no keys of the settings


class Place(NamedTuple):
    """A place in the settings."""

    shown: str  # key or number; "" for the top, and for what pydantic adds: the class within a union, `[key]`
    kinds: list[Any]  # types that its value may have; empty for a place that the schema does not have


def walk(model: Any, keys: Sequence[Any]) -> Iterator[Place]:
    """Yield the top of a model, and the place after each of the keys, which may be those of a problem of pydantic."""
    kinds = list(_members(model))
    yield Place("", kinds)
    for part in keys:
        added = part in _ADDED or any(part == kind.__name__ for kind in kinds if is_section(kind))
        if not added:
            kinds = [inner for kind in kinds for each in _inside(kind, part) for inner in _members(each)]
        yield Place("" if added else str(part), kinds)


def keys_of(kinds: Sequence[Any]) -> Iterator[str]:
    """Yield the keys that sections among the types have."""
    for kind in kinds:
        if is_section(kind):
            yield from kind.model_fields


def is_section(kind: Any) -> bool:
    """Return whether a type is a section: a mapping whose keys the schema names."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _inside(kind: Any, part: Any) -> Iterator[Any]:
    """Yield the type of what is at a key of a value of some type."""
    if is_section(kind):
        if part in kind.model_fields:
            yield kind.model_fields[part].annotation
    elif get_args(kind):  # a list, or a mapping, whose values are of its last type
        yield get_args(kind)[-1]


def _members(kind: Any) -> Iterator[Any]:
    """Yield the types that a union consists of, or the type itself."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from _members(each)
    else:
        yield kind
