"""Settings from a file or text, or what is wrong with it: every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from velocitune_core.config.base import ConfigError
from velocitune_core.config.misread import missing_blank
from velocitune_core.config.params import Params
from velocitune_core.config.problems import describe_problems
from velocitune_core.config.yaml_text import parse_yaml


def parse_params(tree: Any, origin: str = "params.yaml") -> Params:
    """Check a parsed YAML tree and return the settings. Raises ConfigError with every problem found."""
    try:
        return Params.model_validate(_sections(tree, origin))
    except ValidationError as error:
        raise ConfigError(f"{origin}:\n{describe_problems(error, of=Params)}") from None


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
