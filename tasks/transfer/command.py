"""The command lines of `python -m flows.jobs` and `python -m flows.collect`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.transfer.collect import read_folder
from tasks.transfer.export import check_can_leave, check_destination
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import command_line, parse, path_argument, run_flow


def run_jobs(jobs: Callable[[bool, Path], object], arguments: Sequence[str] | None = None) -> None:
    """Command line of the flow `jobs`.

    Args:
        jobs: called with whether to compare, and the folder.
    """
    parser = command_line("jobs")
    parser.add_argument("--to", type=path_argument, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--compare", action="store_true", help="the runs of `compare.runs` instead of the main run")
    given = parse(parser, arguments)

    def check() -> None:
        check_can_leave(checked_params(given.compare), given.compare)
        check_destination(given.to)

    run_flow(lambda: jobs(given.compare, given.to), check)


def run_collect(collect: Callable[[Path], object], arguments: Sequence[str] | None = None) -> None:
    """Command line of the flow `collect`, which is called with the folder."""
    parser = command_line("collect")
    parser.add_argument("folder", type=path_argument, metavar="FOLDER", help="that `python -m flows.jobs` wrote")
    given = parse(parser, arguments)
    run_flow(lambda: collect(given.folder), lambda: checked_params(read_folder(given.folder)[0].goal == "compare"))
