"""params.yaml of a workspace: read once for a whole run, and changed by overrides, as DVC and git record the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.workspace import paths
from tasks.workspace.planned_settings import strategy_problems
from velocitune_core.config import ConfigError, Params, load_params_from, parse_params, parse_yaml
from velocitune_core.files import write_text


class ParamsChangedError(ValueError):
    """params.yaml was edited while a run that had read it was going on."""


@dataclass(frozen=True)
class Snapshot:
    """The content of params.yaml at one moment."""

    content: bytes

    def unchanged(self) -> bool:
        """Return whether the file still has this content."""
        try:
            return sha256(paths.PARAMS.read_bytes()).digest() == sha256(self.content).digest()
        except OSError:
            return False

    def check_unchanged(self) -> None:
        """Raise ParamsChangedError if the file has changed since a stage that runs by itself read it."""
        if not self.unchanged():
            raise ParamsChangedError(
                f"{paths.PARAMS} was edited during the stage, which ran under the settings of its start; it ends with "
                "an error so that `dvc repro` does not record the edited file as what made its results; run it again, "
                "under either file: runs that finished are not repeated"
            )

    def check_committed(self, uncommitted: Sequence[str]) -> None:
        """Raise ParamsChangedError if stages ran that were not committed to DVC, because the file had changed."""
        if uncommitted:
            raise ParamsChangedError(
                f"{paths.PARAMS} was edited during the run: {', '.join(uncommitted)} ran under the settings of its "
                "start and were not committed to DVC, which would record the edited file as what made them; run "
                "again, under either file: runs that finished are not repeated"
            )


_snapshot: ContextVar[Snapshot | None] = ContextVar("snapshot", default=None)


@contextmanager
def params_snapshot() -> Iterator[Snapshot]:
    """Read params.yaml once: inside, `read_params` returns these settings whatever happens to the file.

    Inside another snapshot, it is that one. Raises ConfigError if there is no file.
    """
    if (outer := _snapshot.get()) is not None:
        yield outer
        return
    token = _snapshot.set(Snapshot(_content()))
    try:
        snapshot = _snapshot.get()
        assert snapshot is not None
        yield snapshot
    finally:
        _snapshot.reset(token)


def read_params() -> Params:
    """Return the settings of the snapshot, or of the file. Raises ConfigError for a missing or invalid file."""
    return load_params_from(_content(), str(paths.PARAMS))


def params_tree() -> Any:
    """Return the settings as YAML reads them, without defaults. Raises ConfigError."""
    return parse_yaml(_content(), str(paths.PARAMS))


def _content() -> bytes:
    if (snapshot := _snapshot.get()) is not None:
        return snapshot.content
    try:
        return paths.PARAMS.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{paths.PARAMS}: no such file; run from the folder that holds {paths.PARAMS}") from None


def override_params(overrides: Mapping[str, Any]) -> None:
    """Set dotted keys, such as `strategy.name`, in params.yaml and keep its comments (as `dvc exp run -S` does).

    Raises ConfigError, and changes nothing, if the file would not be valid any more.
    """
    if overrides:
        write_text(paths.PARAMS, overridden_text(overrides))


def overridden_text(overrides: Mapping[str, Any], settings: Path = paths.PARAMS) -> str:
    """What a file of settings says under overrides. Raises ConfigError if that is not valid any more."""
    yaml = YAML()
    yaml.width = 120
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _write_null)
    tree = yaml.load(settings)
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
        params = parse_params(parse_yaml(text.getvalue(), "overrides"), "overrides")
        if problems := strategy_problems(params.strategy.name, params.strategy.options, params):
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
