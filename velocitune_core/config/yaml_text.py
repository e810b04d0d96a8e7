"""YAML as settings are written: without what it reads in another way than it looks, each named with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from velocitune_core.config.base import ConfigError

_ODD_BASE = re.compile(r"[-+]?0[\d_]+|.*:.*")  # 010 is 8, and 1:30 is 90
_EXPONENT = re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$")  # 1e-5: a number, as DVC writes it; text to YAML 1.1
_STRING, _MERGE, _INT, _DATE = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "merge", "int", "timestamp"))
_NO_DATE = "a date that does not exist"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of YAML 1.2."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def parse_yaml(content: bytes | str, origin: str) -> Any:
    """Return the tree of a YAML text.

    A number such as 1e-5, which `dvc exp run -S` writes, is a number, as in YAML 1.2.

    Raises ConfigError, naming `origin`, for text that is no YAML, and with all problems of one that is: a key twice in
    one mapping, a key that YAML reads as a number, truth value, date or nothing, and a whole number in base 8 or 60.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            problems = [] if root is None else list(_problems(root, "", set()))
            if problems:
                raise ConfigError("\n".join([f"{origin}:", *(f"  {problem}" for problem in problems)]))
            return None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{origin}: not YAML: {error}") from None


def _problems(node: yaml.Node, place: str, seen: set[int]) -> Iterator[str]:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, each in enumerate(node.value):
            yield from _problems(each, f"{place}.{number}", seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            field = f"{place}.{key.value}".lstrip(".")
            line = key.start_mark.line + 1
            if key.tag != _STRING:
                yield f"{field}: line {line}: YAML reads this key as {_read(key)!r}: quote it: '{key.value}':"
            if (before := lines.get((key.tag, key.value))) is not None:
                where = f"line {line}" if before == line else f"lines {before} and {line}"
                yield f"{field}: twice, in {where}; rename or remove one"
            lines.setdefault((key.tag, key.value), line)
            yield from _problems(value, field, seen)
    else:
        yield from _misread(node, place.lstrip("."))


def _misread(node: yaml.Node, field: str) -> Iterator[str]:
    line = node.start_mark.line + 1
    if node.tag == _INT and _ODD_BASE.fullmatch(node.value):
        yield f"{field}: line {line}: YAML reads {node.value} as {_read(node)}: write that, or quote it"
    elif node.tag == _DATE and _read(node) == _NO_DATE:
        yield f"{field}: line {line}: YAML reads {node.value} as {_NO_DATE}: quote it"


def _read(node: yaml.Node) -> Any:
    """Return the value of a key or number as YAML reads it."""
    try:
        return _Loader("").construct_object(node)
    except ValueError:  # of a date; numbers match what they are made from
        return _NO_DATE
