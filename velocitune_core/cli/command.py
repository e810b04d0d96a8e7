"""`velocitune COMMAND …`: show what there is, find the sub-command, and hand its arguments over.

Nothing is imported that a command does not use, so that `--help` and typing errors are answered at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from reprlib import repr as shortened

from velocitune_core.cli.commands import ANYWHERE, BY_NAME, COMMANDS, PIPELINE, Command
from velocitune_core.cli.programs import UsageError, check_packages, run_in_workspace, run_program
from velocitune_core.files import path_problem
from velocitune_core.spelling import aside, nearest

WRONG_USE = 2
HELP = ("-h", "--help")
HEADINGS = {  # by the extra that brings what the commands need
    "": "With runs of your own, wherever they were trained",
    "train": "On any machine with torch (pip install 'velocitune[train]')",
    "lab": "The pipeline, in a workspace (pip install 'velocitune[lab]')",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status. A program replaces this process and never returns.

    Args:
        argv: the arguments; None: those of this process.
    """
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except UsageError as error:
        sys.stderr.write(f"velocitune: {error}\n")
        return WRONG_USE


def _dispatch(argv: list[str]) -> int:
    workspace, argv = take_workspace(argv)
    if not argv or argv[0] in HELP:
        sys.stdout.write(help_text())
        return 0 if argv else WRONG_USE
    if argv[0] == "--version":
        sys.stdout.write(f"velocitune {version('velocitune')}\n")
        return 0
    command = _command(argv[0])
    arguments = [*command.arguments, *argv[1:]]
    check_packages(command)
    if command.kind == PIPELINE:
        run_in_workspace(command, workspace, arguments, for_help=bool({*HELP} & {*arguments}))
    if command.kind == ANYWHERE:
        return import_module(f"velocitune_core.{command.module}").main(
            [*_own_workspace(command, workspace), *arguments]
        )
    if workspace is not None:
        _enter(workspace)
    run_program(command.name, f"velocitune_core.{command.module}", arguments, installed=True)


def take_workspace(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the folder that `--workspace DIR` names anywhere among the arguments, and the other arguments.

    Raises UsageError for an option without a folder.
    """
    found, rest, given = None, [], iter(argv)
    for each in given:
        name, equals, value = each.partition("=")
        if name != "--workspace":
            rest.append(each)
            continue
        folder = value if equals else next(given, "")
        if not folder or folder.startswith("-"):
            raise UsageError("--workspace needs a folder: --workspace DIR")
        if problem := path_problem(folder):
            raise UsageError(f"--workspace {shortened(folder)} {problem}")
        found = Path(folder)
    return found, rest


def help_text() -> str:
    """Return the list of commands, by what they need."""
    lines = [
        "usage: velocitune COMMAND [options]        velocitune COMMAND --help        velocitune --version",
        "",
        "Find the mixture of domains for continual pretraining, and train with it.",
    ]
    for extra, heading in HEADINGS.items():
        own = [each for each in COMMANDS if each.extra == extra]
        lines += ["", f"{heading}:", *(f"  {f'{each.name} {each.takes}':<18}{each.summary}" for each in own)]
    lines += [
        "",
        "A workspace is a folder with a params.yaml, data and results. Commands of the pipeline work in the",
        "current folder, or in the one that --workspace DIR names.",
        "",
        "First steps:  velocitune init work    velocitune plan --workspace work    velocitune run --workspace work",
        "",
    ]
    return "\n".join(lines)


def _command(name: str) -> Command:
    if name in BY_NAME:
        return BY_NAME[name]
    if name.startswith("-"):
        raise UsageError(
            f"there is no option {name!r} before the command{aside(name, ('--help', '--version', '--workspace'))}; "
            "options follow it: velocitune COMMAND [options]"
        )
    meant = f"did you mean {near}? Commands" if (near := nearest(name, BY_NAME)) else "commands"
    raise UsageError(f"there is no command {name!r}; {meant}: {', '.join(each.name for each in COMMANDS)}")


def _own_workspace(command: Command, workspace: Path | None) -> list[str]:
    """Return the arguments by which a command that runs in the current folder takes what it needs from a workspace."""
    if workspace is None:
        return []
    if command.name != "export":
        raise UsageError(
            f"`velocitune {command.name}` has no --workspace; its paths are relative to the current folder"
        )
    return ["--workspace", str(workspace)]


def _enter(workspace: Path) -> None:
    if not workspace.is_dir():
        raise UsageError(f"--workspace: there is no folder {workspace}")
    os.chdir(workspace)
