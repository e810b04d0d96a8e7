"""The command `python -m flows.plan`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tasks.planning.build import device_size, make_plan
from tasks.planning.view import as_json, print_plan
from tasks.workspace.preflight import checked_settings
from tasks.workspace.stage_cli import add_overrides, command_line, overrides_of, parse, user_errors_shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the plan that the arguments describe; exit with status 2 for settings that cannot be priced."""
    parser = command_line("plan")
    add_overrides(parser, "price other settings than those of params.yaml, which is not changed")
    parser.add_argument("--compare", action="store_true", help="price `compare.runs` × seeds, less what is finished")
    parser.add_argument("--fits", metavar="SIZE", help="does it fit into devices of this size, such as 80GB or 24GiB?")
    parser.add_argument("--no-probe", action="store_true", help="time nothing: no seconds in the plan")
    parser.add_argument("--json", action="store_true", help="print everything, as JSON")
    given = parse(parser, arguments)
    with user_errors_shown():
        device_bytes = None if given.fits is None else device_size(given.fits)
        params = checked_settings(overrides_of(given), given.compare, inputs=True)
        if not (given.no_probe or given.json):
            sys.stderr.write("timing a few steps of each kind of run on this machine…\n")
        plan = make_plan(params, compare=given.compare, device_bytes=device_bytes, probe=not given.no_probe)
    if given.json:
        sys.stdout.write(as_json(plan) + "\n")
    else:
        print_plan(plan)
