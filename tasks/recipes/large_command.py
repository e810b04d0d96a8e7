"""The command `python -m flows.large`: the settings of the large mixture, and the workspace that it works in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from prefect import task

from tasks.recipes.debian_npm import check_programs
from tasks.recipes.gguf import check_converter
from tasks.workspace import paths
from tasks.workspace.create import PROJECT
from tasks.workspace.stage_cli import command_line, parse, run_flow
from velocitune_core.files import write_text

SETTINGS = PROJECT / "large/params.yaml"
ARCHIVE_LIST = PROJECT / "large/archives.txt"
WORKSPACE = PROJECT / "large/workspace"


@task(name="write settings")
def write_settings() -> None:
    """Replace params.yaml of the workspace by the settings of the large mixture."""
    write_text(paths.PARAMS, SETTINGS.read_text(encoding="utf-8"))


def check_workspace() -> None:
    """Raise ValueError in the project's own folder, whose params.yaml would be overwritten."""
    if Path.cwd() == PROJECT:
        raise ValueError("--workspace: the large mixture needs a folder of its own, such as large/workspace")


def run_large(large: Callable[[], object], arguments: Sequence[str] | None = None) -> None:
    """Command line of the flow `large`."""
    parser = command_line("large")
    parser.set_defaults(workspace=WORKSPACE)
    parse(parser, arguments)
    run_flow(large, check)


def check() -> None:
    """Raise ValueError for whatever is missing, before anything is fetched."""
    check_workspace()
    check_programs()
    check_converter()
