"""params.yaml of a workspace: read once for a whole run, and changed by overrides, as DVC and git record the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from tasks.workspace import paths
from tasks.workspace.left_over import drop, left_over, parse_used, without_left_over
from tasks.workspace.override_keys import dotted, has_unknown_key, set_override
from tasks.workspace.own_settings import keep_own_settings, write_params
from tasks.workspace.planned_checks import strategy_problems
from tasks.workspace.said_once import warn_once
from tasks.workspace.yaml_lines import changed_lines_only, indent_of
from velocitune_core.config import (
    ConfigError,
    Params,
    has_password,
    parse_yaml,
    read_content,
    without_credentials,
)
from velocitune_core.config.no_yaml import TOO_DEEP, decoded, why_no_yaml


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
    """Return the settings of the snapshot, or of the file, without those that belong to another strategy.

    `dvc exp run -S strategy.name=static` leaves the options of the strategy before in the file. They are ignored, with
    one warning for each. Raises ConfigError for a missing or invalid file.
    """
    return read_settings(_content(), str(paths.PARAMS))


def read_settings(content: bytes | str, origin: str) -> Params:
    """Return the settings in a text, as `read_params` does. Raises ConfigError, naming `origin`."""
    tree, ignored = without_left_over(parse_yaml(content, origin))
    params = parse_used(tree, origin)
    for notice in ignored:
        warn_once(f"{notice}; ignored")
    return params


def params_tree() -> Any:
    """Return the settings as YAML reads them, without defaults. Raises ConfigError."""
    return parse_yaml(_content(), str(paths.PARAMS))


def _content() -> bytes:
    if (snapshot := _snapshot.get()) is not None:
        return snapshot.content
    return read_content(paths.PARAMS)


def override_params(overrides: Mapping[str, Any]) -> None:
    """Set dotted keys, such as `strategy.name`, in params.yaml and keep its comments, as `dvc exp run -S` does.

    A mapping for a section sets the keys that it names: `dotted`. All are taken back if the command does not finish.
    Options of the strategy before are removed with a warning. Raises ConfigError, and changes nothing, if the file
    would not be valid any more.
    """
    if overrides:
        text, removed = overridden_text(overrides)
        keep_own_settings(text)
        write_params(text)
        for notice in removed:
            warn_once(notice)
        _warn_of_passwords(dotted(overrides))


def _warn_of_passwords(overrides: Mapping[str, Any]) -> None:
    if keys := [key for key, value in overrides.items() if has_password(value)]:
        warn_once(
            f"{', '.join(keys)}: params.yaml keeps the password, and so does where the override is from: a run of "
            "Prefect, an experiment of DVC; take it out of the address, and set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD (of PostgreSQL: PGPASSWORD) where the command, or `make serve`, is started"
        )


def overridden_text(overrides: Mapping[str, Any], settings: Path = paths.PARAMS) -> tuple[str, list[str]]:
    """Return what a file of settings says under overrides, and a notice for what they remove.

    The lines that change are laid out as DVC does, others stay as they are. Raises ConfigError if that is not valid.
    """
    yaml = YAML()
    yaml.Representer = _Representer
    own = decoded(read_content(settings), str(settings))
    yaml.map_indent = indent_of(own)
    tree = yaml.load(own)
    before = _dumped(yaml, tree)
    overrides = dotted(overrides)
    replaced = [set_override(tree, key, value) for key, value in overrides.items()]
    removed = [*filter(None, replaced), *drop(tree, overrides.keys())]
    text = _merged(yaml, own, before, _dumped(yaml, tree))
    try:
        params = parse_used(parse_yaml(text, "overrides"), "overrides")
        without_use = [each.notice for each in left_over(tree)]  # `drop` leaves what was given
        if problems := without_use or strategy_problems(params.strategy.name, params.strategy.options, params):
            raise ConfigError("\n  ".join(["overrides:", *problems]))
    except ConfigError as error:
        if not has_unknown_key(overrides):
            raise
        raise ConfigError(f"{error}\n  nothing was run; give overrides as dotted keys of params.yaml") from None
    return text, removed


def _merged(yaml: YAML, own: str, before: str, after: str) -> str:
    """Return the file with its changed lines alone written anew, or all of them where that would say something else."""
    text = changed_lines_only(own, before, after)
    try:
        return text if yaml.load(text) == yaml.load(after) else after
    except YAMLError:
        return after


def _dumped(yaml: YAML, tree: Any) -> str:
    text = StringIO()
    yaml.dump(tree, text)
    return text.getvalue()


def parse_override(setting: str) -> tuple[str, Any]:
    """`key=value` of a command line, the value read as YAML. Raises ConfigError for any other form."""
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"{without_credentials(setting)!r} is not KEY=VALUE, such as strategy.name=recommended")
    try:
        return key, YAML(typ="safe").load(value)
    except YAMLError as error:
        raise ConfigError(
            f"-S {key}: {shortened(without_credentials(value))}: {why_no_yaml(error, value, located=False)}"
        ) from None
    except RecursionError:
        raise ConfigError(f"-S {key}: {TOO_DEEP}; remove brackets") from None


class _Representer(RoundTripRepresenter):
    """Writes as DVC does, except for small numbers."""


def _represent_float(representer: Any, value: float) -> Any:
    """A number to YAML 1.1 too, which reads 1e-05 as text and 1.0e-05 as a number."""
    text = representer.represent_float(value).value
    return representer.represent_scalar("tag:yaml.org,2002:float", text if "." in text else text.replace("e", ".0e"))


_Representer.add_representer(float, _represent_float)
