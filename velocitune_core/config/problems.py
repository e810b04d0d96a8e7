"""What is wrong with settings, in words: one line per problem of pydantic, with field, value and what to do."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from velocitune_core.config.base import NAME_IN_WORDS, NAME_PATTERN, RENAMED
from velocitune_core.config.credentials import without_credentials
from velocitune_core.config.misread import advice_on, missing_blank
from velocitune_core.config.schema import keys_of, walk
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
    *above, last = walk(of, problem["loc"])
    field = ".".join(each.shown for each in (*above, last) if each.shown) or "(whole file)"
    if problem["type"] == "extra_forbidden":
        if field in renamed:
            return f"{field}: renamed to {renamed[field]}"
        section = ".".join(each.shown for each in above if each.shown)
        return f"{field}: {_unknown_key(last.shown, list(keys_of(above[-1].kinds)), section)}"
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


def _unknown_key(key: str, known: Collection[str], section: str) -> str:
    name, colon, value = key.partition(":")
    if colon and value and (name in known or not known):  # {kind:cosine}, which YAML reads as a key without a value
        return missing_blank(key)
    meant = did_you_mean(key, known, within=section)
    return f"unknown key; remove it or check its spelling{meant}"
