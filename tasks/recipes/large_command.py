"""The command `python -m flows.large`: the settings of a mixture, and the workspace that it works in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from tasks.recipes.debian_npm import check_programs
from tasks.recipes.gguf import check_converter
from tasks.workspace import paths
from tasks.workspace.create import PROJECT
from tasks.workspace.params_file import overridden_text
from tasks.workspace.stage_cli import add_overrides, command_line, flow_command, overrides_of, parse, run_flow
from velocitune_core.files import write_text

SETTINGS = PROJECT / "large/params.yaml"
MEDIUM_SETTINGS = PROJECT / "large/medium.yaml"
ARCHIVE_LIST = PROJECT / "large/archives.txt"
MODEL_LIST = PROJECT / "large/model.txt"
WORKSPACE = PROJECT / "large/workspace"
MEDIUM_WORKSPACE = PROJECT / "large/medium-workspace"


@task(name="write settings")
def write_settings(settings: str) -> None:
    """Replace params.yaml of the workspace."""
    write_text(paths.PARAMS, settings)


def settings_text(medium: bool, overrides: Mapping[str, Any]) -> str:
    """Return the settings of the large mixture, or of the medium one; under overrides, with their values.

    Raises ConfigError for overrides that are not valid.
    """
    source = MEDIUM_SETTINGS if medium else SETTINGS
    return overridden_text(overrides, source) if overrides else source.read_text(encoding="utf-8")


def check_workspace() -> None:
    """Raise ValueError in the project's own folder, whose params.yaml would be overwritten."""
    if Path.cwd() == PROJECT:
        raise ValueError("--workspace: the large mixture needs a folder of its own, such as large/workspace")


def run_large(large: Callable[[bool, str], object], arguments: Sequence[str] | None = None) -> None:
    """Command line of the flow `large`, which is called with whether the medium mixture is wanted, and the settings."""
    parser = command_line("large")
    parser.add_argument("--medium", action="store_true", help="the medium mixture, whose base is trained from scratch")
    add_overrides(parser, "change a setting of the mixture, e.g. -S compare.seeds=[1]")
    medium = parser.parse_known_args(arguments)[0].medium
    parser.set_defaults(workspace=MEDIUM_WORKSPACE if medium else WORKSPACE)
    given = parse(parser, arguments)
    with flow_command():
        settings = settings_text(medium, overrides_of(given))
    run_flow(lambda: large(medium, settings), lambda: check(medium))


def check(medium: bool = False) -> None:
    """Raise ValueError for whatever is missing, before anything is fetched."""
    check_workspace()
    check_programs()
    if not medium:
        check_converter()
