"""What is wrong with settings, in words: one line per problem of pydantic, with field, value and what to do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from velocitune_core.config.base import KEYS, NAME_IN_WORDS, NAME_PATTERN, RENAMED, WORD
from velocitune_core.config.credentials import without_credentials
from velocitune_core.config.misread import advice_on, missing_blank
from velocitune_core.spelling import did_you_mean

_IN_WORDS = {  # by type of error: what pydantic says with the names of classes, or of Python's types
    "model_type": "Input should be a mapping of keys to values",
    "model_attributes_type": "Input should be a mapping of keys to values",
    "dict_type": "Input should be a mapping of names to values",
    "list_type": "Input should be a list",
    "tuple_type": "Input should be a list",
    "bool_type": "Input should be true or false",
}
_PATTERNS = {NAME_PATTERN: NAME_IN_WORDS, r"\S": "should have a character that is no blank"}
_ADDED = {"[key]", WORD, KEYS}  # parts of a place that are no keys of the settings
_MAPPINGS = {"model_type", "model_attributes_type", "dict_type"}
_NUMBERS = {"int_type", "float_type", "int_parsing", "float_parsing"}


def describe_problems(
    error: ValidationError, renamed: Mapping[str, str] = RENAMED, *, of: type[BaseModel] | None = None
) -> str:
    """Return one line per problem: field, what is wrong, the value that was given.

    Args:
        renamed: old dotted key → new one; an old key is reported with its new name.
        of: what was validated, so that an unknown key is reported with the known one that it is most like.
    """
    lines = dict.fromkeys(_described(each, renamed, of) for each in error.errors())
    return "\n".join(f"  {without_credentials(line)}" for line in lines)  # keys and messages may have some, too


def _described(problem: Any, renamed: Mapping[str, str], of: type[BaseModel] | None) -> str:
    *above, last = _walk(of, problem["loc"])
    field = ".".join(each.shown for each in (*above, last) if each.shown) or "(whole file)"
    if problem["type"] == "extra_forbidden":
        if field in renamed:
            return f"{field}: renamed to {renamed[field]}"
        return f"{field}: {_unknown_key(last.shown, list(_keys(above[-1].kinds)))}"
    given = "" if problem["type"] in {"missing", "value_error"} else f" (got {problem['input']!r})"
    if better := _advice(problem):
        given += f"; {better}"
    return f"{field}: {_message(problem)}{given}"


def _message(problem: Any) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "string_pattern_mismatch" and context["pattern"] in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    if kind == "too_short":
        return f"is empty; give at least {context['min_length']}"
    return _IN_WORDS.get(kind) or str(problem["msg"]).removeprefix("Value error, ")


def _advice(problem: Any) -> str:
    """Return what to write in place of a value; "" if nothing is known that is like it."""
    kind, value = problem["type"], problem["input"]
    if kind == "literal_error":
        return did_you_mean(value, re.findall(r"'([^']*)'", problem["ctx"]["expected"])).removeprefix("; ")
    if kind in _MAPPINGS and isinstance(value, str):
        return missing_blank(value)
    in_digits = "write it in digits" if kind in _NUMBERS and isinstance(value, str) else ""
    return advice_on(value, kind) or in_digits


def _unknown_key(key: str, known: Collection[str]) -> str:
    name, colon, value = key.partition(":")
    if colon and value and (name in known or not known):  # {kind:cosine}, which YAML reads as a key without a value
        return missing_blank(key)
    return f"unknown key; remove it or check its spelling{did_you_mean(key, known)}"


class _Place(NamedTuple):
    shown: str  # key or number; "" for the top, and for what pydantic adds: the class within a union, `[key]`
    kinds: list[Any]  # types that its value may have


def _walk(model: Any, place: Sequence[Any]) -> Iterator[_Place]:
    """Yield the top of what was validated, and each part of the place of a problem."""
    kinds = list(_members(model))
    yield _Place("", kinds)
    for part in place:
        added = part in _ADDED or any(part == kind.__name__ for kind in kinds if _is_section(kind))
        if not added:
            kinds = [inner for kind in kinds for each in _inside(kind, part) for inner in _members(each)]
        yield _Place("" if added else str(part), kinds)


def _keys(kinds: Sequence[Any]) -> Iterator[str]:
    for kind in kinds:
        if _is_section(kind):
            yield from kind.model_fields


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _inside(kind: Any, part: Any) -> Iterator[Any]:
    """Yield the type of what is at a key of a value of some type."""
    if _is_section(kind):
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
