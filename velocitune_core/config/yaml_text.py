"""YAML as settings are written: without what it reads in another way than it looks, each named with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from velocitune_core.config.base import ConfigError
from velocitune_core.config.no_yaml import TOO_DEEP, decoded, why_no_yaml

_ODD_BASE = re.compile(r"[-+]?0[\d_]+|.*:.*")  # 010 is 8, and 1:30 is 90
_EXPONENT = re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$")  # 1e-5: a number, as DVC writes it; text to YAML 1.1
DEEPEST = 100  # mappings and lists inside one another
_STRING, _MERGE, _INT, _DATE = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "merge", "int", "timestamp"))
_NO_DATE = "a date that does not exist"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of YAML 1.2, and no deeper than settings can be."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._check(self._depth)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        self._check(self.flow_level)  # before it is composed: looking ahead through a thousand brackets takes seconds
        super().fetch_flow_collection_start(TokenClass)

    def _check(self, depth: int) -> None:
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=self.get_mark())


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def parse_yaml(content: bytes | str, origin: str) -> Any:
    """Return the tree of a YAML text.

    A number such as 1e-5, which `dvc exp run -S` writes, is a number, as in YAML 1.2.

    Raises ConfigError, naming `origin`, for text that is no YAML, with its line and what to do, and with all problems
    of one that is: a key twice in one mapping, a key that YAML reads as a number, truth value, date or nothing, and a
    whole number in base 8 or 60.
    """
    text = decoded(content, origin)
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{origin}: {why_no_yaml(error, text)}") from None
    try:
        root = loader.get_single_node()
        problems = [] if root is None else list(_problems(root, "", set()))
        tree = None if root is None or problems else _constructed(loader, root)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: {why_no_yaml(error, text)}") from None
    finally:
        loader.dispose()
    if problems:
        raise ConfigError("\n".join([f"{origin}:", *(f"  {problem}" for problem in problems)]))
    return tree


def _constructed(loader: _Loader, root: yaml.Node) -> Any:
    try:
        return loader.construct_document(root)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"the value of a tag (!!) does not fit it: {error!r}"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=root.start_mark) from None


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
    except (ValueError, KeyError, AttributeError):  # of a date, or a tag that was written; numbers match theirs
        return _NO_DATE
