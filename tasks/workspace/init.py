"""Make a folder a workspace: of its own are settings (params.yaml), data and results, and the code is linked.

A workspace that is there already is brought up to date; its settings and results stay.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys

from tasks.workspace import paths
from tasks.workspace.create import PROJECT, make_workspace
from tasks.workspace.stage_cli import user_errors_shown
from velocitune_core.cli.parser import path_argument
from velocitune_core.cli.programs import program_parser


def main() -> int:
    """Run the command line; return the exit status."""
    parser = program_parser("python -m tasks.workspace.init", __doc__, workspace="in place of DIR")
    parser.add_argument(
        "folder", type=path_argument, metavar="DIR", help="new or empty, or holding just params.yaml and data"
    )
    parser.add_argument("--with-settings", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with user_errors_shown():
        make_workspace(given.folder)
    if given.with_settings:
        settings = given.folder / paths.PARAMS
        found = "the settings that were there" if settings.exists() else f"those of {PROJECT / paths.PARAMS}"
        if not settings.exists():
            shutil.copyfile(PROJECT / paths.PARAMS, settings)
        folder = shlex.quote(os.path.relpath(given.folder))
        at = "" if folder == "." else f" --workspace {folder}"
        sys.stdout.write(
            f"{given.folder} is a workspace. Its settings, {settings}, are {found}.\n\n"
            f"What a run will cost:  velocitune plan{at}\nRun it:               velocitune run{at}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
