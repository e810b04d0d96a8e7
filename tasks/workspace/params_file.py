"""Parameters of a run, written into params.yaml: what ran is what the file says, for DVC, for git and for people."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

import yaml as pyyaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.workspace import paths
from velocitune_core.config import ConfigError, parse_params
from velocitune_core.files import write_text
from velocitune_core.strategies import check_strategy


def override_params(overrides: Mapping[str, Any]) -> None:
    """Set dotted keys, such as `strategy.name`, in params.yaml and keep its comments (as `dvc exp run -S` does).

    Raises ConfigError, and changes nothing, if the file would not be valid any more.
    """
    if overrides:
        write_text(paths.PARAMS, overridden_text(overrides))


def overridden_text(overrides: Mapping[str, Any]) -> str:
    """What params.yaml says under overrides. Raises ConfigError if that is not valid any more."""
    yaml = YAML()
    yaml.width = 120
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _write_null)
    tree = yaml.load(paths.PARAMS)
    for key, value in overrides.items():
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            if not isinstance(place.get(section), Mapping):
                place[section] = {}
            place = place[section]
        place[last] = value
    yaml.representer.add_representer(float, _represent_float)
    text = StringIO()
    yaml.dump(tree, text)
    try:
        params = parse_params(pyyaml.safe_load(text.getvalue()), "overrides")
        if problems := check_strategy(params.strategy.name, params.strategy.options, list(params.domains)):
            raise ConfigError("\n  ".join(["overrides:", *problems]))
    except ConfigError as error:
        raise ConfigError(f"{error}\n  nothing was run; give overrides as dotted keys of params.yaml") from None
    return text.getvalue()


def _write_null(representer: Any, _: None) -> Any:
    """`null` as people write it, where ruamel leaves the place empty."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def parse_override(setting: str) -> tuple[str, Any]:
    """`key=value` of a command line, the value read as YAML. Raises ConfigError for any other form."""
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"{setting!r} is not KEY=VALUE, such as strategy.name=recommended")
    try:
        return key, YAML(typ="safe").load(value)
    except YAMLError as error:
        raise ConfigError(f"{setting!r} is not KEY=VALUE with a value in YAML: {error}") from None


def _represent_float(representer: Any, value: float) -> Any:
    """A number to YAML 1.1 too, which reads 1e-05 as text and 1.0e-05 as a number."""
    text = representer.represent_float(value).value
    return representer.represent_scalar("tag:yaml.org,2002:float", text if "." in text else text.replace("e", ".0e"))
