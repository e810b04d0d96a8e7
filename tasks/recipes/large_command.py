"""The command `python -m flows.large`: the settings of a mixture, and the workspace that it works in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task

from tasks.recipes.debian_npm import check_programs
from tasks.recipes.gguf import MODEL, check_converter
from tasks.workspace import paths
from tasks.workspace.create import PROJECT
from tasks.workspace.params_file import overridden_text
from tasks.workspace.stage_cli import add_overrides, command_line, flow_command, overrides_of, parse, run_flow
from velocitune_core.config import load_params_from
from velocitune_core.files import write_text
from velocitune_core.recipes.embedded import ARCHIVED
from velocitune_core.recipes.large import LARGE

ARCHIVE_LIST = PROJECT / "large/archives.txt"
MODEL_LIST = PROJECT / "large/model.txt"


@dataclass(frozen=True)
class Mixture:
    """The settings of a mixture, and the folder that it is worked on in."""

    settings: Path
    workspace: Path


LARGEST = Mixture(PROJECT / "large/params.yaml", PROJECT / "large/workspace")
MEDIUM = Mixture(PROJECT / "large/medium.yaml", PROJECT / "large/medium-workspace")
SMALL = Mixture(PROJECT / "large/small.yaml", PROJECT / "large/small-workspace")


@dataclass(frozen=True)
class Inputs:
    """What the settings of a mixture need."""

    from_archives: list[str]  # domains
    from_packages: list[str]  # domains, of Debian and npm
    converted_model: bool


def needed_inputs(settings: str) -> Inputs:
    """Return what settings need: which domains from where, and whether the converted model."""
    params = load_params_from(settings.encode(), "settings of the mixture")
    archived = [name for name in params.domains if name in ARCHIVED]
    packaged = [name for name in params.domains if name in LARGE]
    return Inputs(archived, packaged, params.model.path == str(MODEL))


@task(name="write settings")
def write_settings(settings: str) -> Inputs:
    """Replace params.yaml of the workspace; return what it needs."""
    write_text(paths.PARAMS, settings)
    return needed_inputs(settings)


def settings_text(mixture: Mixture, overrides: Mapping[str, Any]) -> str:
    """Return the settings of a mixture; under overrides, with their values.

    Raises ConfigError for overrides that are not valid.
    """
    source = mixture.settings
    return overridden_text(overrides, source)[0] if overrides else source.read_text(encoding="utf-8")


def check_workspace() -> None:
    """Raise ValueError in the project's own folder, whose params.yaml would be overwritten."""
    if Path.cwd() == PROJECT:
        raise ValueError("--workspace: the large mixture needs a folder of its own, such as large/workspace")


def run_large(large: Callable[[str], object], arguments: Sequence[str] | None = None) -> None:
    """Command line of the flow `large`, which is called with the settings of the mixture that is wanted."""
    parser = command_line("large")
    smaller = parser.add_mutually_exclusive_group()
    for mixture, flag, what in [
        (MEDIUM, "--medium", "the medium mixture, whose base is trained from scratch"),
        (SMALL, "--small", "the small mixture, of the size of the embedded default, for a CPU"),
    ]:
        smaller.add_argument(flag, dest="mixture", action="store_const", const=mixture, default=LARGEST, help=what)
    add_overrides(parser, "change a setting of the mixture, e.g. -S compare.seeds=[1]")
    parser.set_defaults(workspace=parser.parse_known_args(arguments)[0].mixture.workspace)
    given = parse(parser, arguments)
    with flow_command():
        settings = settings_text(given.mixture, overrides_of(given))
    run_flow(lambda: large(settings), lambda: check(settings))


def check(settings: str) -> None:
    """Raise ValueError for whatever is missing, before anything is fetched."""
    check_workspace()
    check_programs()
    if needed_inputs(settings).converted_model:
        check_converter()
