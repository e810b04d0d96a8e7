"""Settings from a file or text, or what is wrong with it: every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from velocitune_core.config.base import ConfigError
from velocitune_core.config.misread import missing_blank
from velocitune_core.config.params import Params
from velocitune_core.config.problems import describe_problems
from velocitune_core.config.yaml_text import parse_yaml


def parse_params(tree: Any, origin: str = "params.yaml", *, unused: Sequence[str] = ()) -> Params:
    """Check a parsed YAML tree and return the settings. Raises ConfigError with every problem found.

    Args:
        unused: sections that these settings have no use for. Each is checked by itself, as a mistake in it would show
            only when it is used, and left out of what is returned.
    """
    sections = _sections(tree, origin)
    params, problems = None, [problem for name in unused for problem in _problems_alone(name, sections[name])]
    try:
        params = Params.model_validate({name: each for name, each in sections.items() if name not in unused})
    except ValidationError as error:
        problems.insert(0, describe_problems(error, of=Params))
    if params is None or problems:
        raise ConfigError("\n".join([f"{origin}:", *problems]))
    return params


def _problems_alone(section: str, value: Any) -> Iterator[str]:
    """Yield what is wrong with a section whatever the others say."""
    kind: Any = Params.model_fields[section].annotation
    try:
        TypeAdapter(dict[str, kind]).validate_python({section: value})
    except ValidationError as error:
        yield describe_problems(error, of=Params)


def _sections(tree: Any, origin: str) -> dict[Any, Any]:
    if isinstance(tree, dict):
        return tree
    held = "is empty" if tree is None else f"holds a {type(tree).__name__} and no settings such as `data:`"
    if isinstance(tree, str) and (missing := missing_blank(tree)):
        raise ConfigError(f"{origin}: holds no settings; {missing}")
    raise ConfigError(f"{origin}: {held}; restore it, or copy the params.yaml of a new folder: `velocitune init DIR`")


def load_params(path: Path) -> Params:
    """Read and check params.yaml. Raises ConfigError for a missing, unreadable or invalid file."""
    return load_params_from(read_content(path), str(path))


def read_content(path: Path) -> bytes:
    """Return the content of a file of settings. Raises ConfigError for one that is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run from the folder that holds {path.name}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; move it away, and put a file with settings in its place") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; allow it to be read, or restore it") from None


def load_params_from(content: bytes, origin: str) -> Params:
    """Check the content of a params.yaml. Raises ConfigError, naming `origin`, for text that is no valid settings."""
    return parse_params(parse_yaml(content, origin), origin)
