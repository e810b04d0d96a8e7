"""Start the program of a sub-command: the training program, or a command of the pipeline in its workspace.

The pipeline is not part of the package, which never imports it. Its code is in the clone that the package is installed
from, or in the template that the wheel carries as data; a workspace links to it. A command of the pipeline is
`python -m flows.<name>` in the workspace, in place of this process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from velocitune_core.cli.commands import BY_NAME, PACKAGES, Command
from velocitune_core.cli.parser import Parser

PACKAGE = Path(__file__).resolve().parents[1]
FLOWS = Path("flows/pipeline.py")  # is there in every workspace, and in every clone
SHOWN_AS = "VELOCITUNE_SHOWN_AS"  # how the help of a program calls it


def program_parser(
    program: str, description: str | None, epilog: str | None = None, *, workspace: str = ""
) -> argparse.ArgumentParser:
    """Return the parser of a program; the help calls it as the sub-command of `velocitune` that started it, if any.

    Args:
        workspace: help of `--workspace`, for a program without that option. `velocitune` takes the option from among
            the arguments of its sub-commands, and their help must list it.
    """
    shown = os.environ.pop(SHOWN_AS, program)  # not for the programs that it starts
    parser = Parser(prog=shown, description=(description or "").replace(program, shown), epilog=epilog)
    if workspace and shown != program:
        parser.add_argument("--workspace", metavar="DIR", help=workspace)
    return parser


class UsageError(ValueError):
    """A command that cannot be run as it was given."""


def check_packages(command: Command) -> None:
    """Raise UsageError, with what to install, if packages that a command needs are not installed."""
    needed = {**dict.fromkeys(PACKAGES[""]), **dict.fromkeys(PACKAGES[command.extra])}
    if missing := [name for name in needed if find_spec(name) is None]:
        extra = f"[{command.extra}]" if command.extra else ""
        raise UsageError(
            f"`velocitune {command.name}` needs packages that are not installed ({', '.join(missing)}). Install them:\n"
            f"  pip install 'velocitune{extra}'\nor, in a clone:  pip install --editable '.{extra}'"
        )


def code_of_pipeline() -> Path:
    """Return the folder with `flows` and `tasks`. Raises UsageError if this installation has none."""
    for folder in (PACKAGE / "template", PACKAGE.parent):
        if (folder / FLOWS).is_file():
            return folder
    raise UsageError(
        f"the code of the pipeline is neither in {PACKAGE} nor beside it; install the wheel, or a clone: "
        "pip install --editable '.[lab]'"
    )


def run_in_workspace(
    command: Command, workspace: Path | None, arguments: Sequence[str], *, for_help: bool = False
) -> NoReturn:
    """Run a command of the pipeline in a workspace.

    Args:
        workspace: made if it is not there yet; None: the current folder.
        for_help: only the help of the command is wanted, which needs no workspace.

    Raises UsageError if the current folder is no workspace, or is gone; exits with a message if the folder cannot be
    made one.
    """
    _check_current_folder()
    if command.name == "init":
        named = [] if workspace is None else [str(workspace)]
        run_program(command.name, command.module, ["--with-settings", *named, *arguments], code_of_pipeline())
    if for_help:
        run_program(command.name, command.module, arguments, code_of_pipeline())
    if workspace is not None:
        _enter(workspace)
    if not FLOWS.is_file():
        raise UsageError(
            f"{Path.cwd()} is no workspace. Make one with `velocitune init DIR` (`velocitune init .` for this folder, "
            "if it holds just params.yaml and data), or name one with --workspace DIR"
        )
    run_program(command.name, command.module, arguments)


def run_program(
    name: str, module: str, arguments: Sequence[str], code: Path | None = None, *, installed: bool = False
) -> NoReturn:
    """Replace this process by `python -m module`.

    Args:
        name: of the sub-command, for the help of the program.
        code: the folder to import it from; None: the current folder, or what is installed.
        installed: import nothing from the current folder, nor in programs that it starts.
    """
    environment = dict(os.environ) if code is None else _importing_from(code)
    environment[SHOWN_AS] = f"velocitune {name}"
    if installed:
        environment["PYTHONSAFEPATH"] = "1"  # as -P
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, _python(module, arguments, code), environment)


def _check_current_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder has been deleted; go to another one") from None


def _enter(workspace: Path) -> None:
    """Make the folder a workspace, or bring it up to date, and enter it; exit if it cannot be one."""
    code = code_of_pipeline()
    made = subprocess.run(
        _python(BY_NAME["init"].module, [str(workspace)], code), env=_importing_from(code), check=False
    )
    if made.returncode:
        sys.exit(made.returncode)
    os.chdir(workspace)
    os.environ["PWD"] = str(Path.cwd())  # the deployments in prefect.yaml read it


def _python(module: str, arguments: Sequence[str], code: Path | None) -> list[str]:
    """Return the command line; with `code`, nothing is imported from the current folder."""
    return [sys.executable, *(["-P"] if code else []), "-m", module, *arguments]


def _importing_from(code: Path) -> dict[str, str]:
    places = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(places)}
