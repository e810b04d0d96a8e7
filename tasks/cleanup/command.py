"""The command `python -m flows.clean`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tasks.cleanup.found import Found, delete, found_runs
from tasks.cleanup.present import present_runs
from tasks.workspace.lock import check_workspace, exclusive
from tasks.workspace.preflight import checked_settings
from tasks.workspace.stage_cli import command_line, parse, user_errors_shown
from velocitune_core.style.text import counted

MEGABYTE = 10**6


def main(arguments: Sequence[str] | None = None) -> None:
    """List what lies in `runs/`, and delete what the arguments allow; exit with status 2 if the settings are wrong."""
    parser = command_line("clean")
    parser.add_argument("--delete", action="store_true", help="delete what would be freed; without it nothing is")
    parser.add_argument("--unfinished", action="store_true", help="free unfinished runs of other settings, too")
    given = parse(parser, arguments)
    with user_errors_shown():
        check_workspace()
        _clean(given.unfinished, given.delete)


def _clean(unfinished: bool, deletes: bool) -> None:
    with exclusive():
        found = found_runs(present_runs(checked_settings({})))
        freed = [each for each in found if each.is_freed(unfinished)]
        for each in found:
            _say(f"{each.size_bytes / MEGABYTE:10.1f} MB  {each.path}: {_described(each, each in freed)}")
        if deletes:
            gone = [each for each in freed if delete(each.path)]
            for each in freed:
                if each not in gone:
                    _say(f"{each.path}: stays, a process runs in it")
            _say(f"{len(gone)} of {counted(len(found), 'folder')} deleted, {_megabytes(gone)} freed")
        else:
            _say(
                f"{len(freed)} of {counted(len(found), 'folder')}, {_megabytes(freed)}, would be deleted: add --delete"
            )
        stay = [each for each in found if each not in freed]
        _say(f"what stays: {counted(len(stay), 'folder')}, {_megabytes(stay)}{_kept_unfinished(stay, unfinished)}")


def _described(found: Found, freed: bool) -> str:
    kind = {True: "finished, ", False: "unfinished, ", None: ""}[found.finished]
    return f"{kind}{found.state}{'; to be deleted' if freed else ''}"


def _kept_unfinished(stay: Sequence[Found], unfinished: bool) -> str:
    """Return how much of what stays would go with `--unfinished`."""
    more = [each for each in stay if not unfinished and each.is_freed(unfinished=True)]
    return (
        f"; {len(more)} of them, {_megabytes(more)}, are unfinished runs of other settings: --unfinished"
        if more
        else ""
    )


def _megabytes(found: Sequence[Found]) -> str:
    return f"{sum(each.size_bytes for each in found) / MEGABYTE:.1f} MB"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
