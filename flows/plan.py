"""What will it cost? Prices a run before it starts: `python -m flows.plan`. A question only: nothing is run or written.

Tokens, steps, FLOPs, time from a probe of a few seconds on this machine, memory per device, and disk.
"""

import argparse
import sys
from typing import Any

from tasks.planning.build import device_size, make_plan
from tasks.planning.view import as_json, print_plan
from tasks.workspace.params_file import parse_override
from tasks.workspace.preflight import checked_settings


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.plan", description=__doc__)
    parser.add_argument(
        "-S",
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="price other settings than params.yaml's, which stays as it is (may be repeated)",
    )
    parser.add_argument("--compare", action="store_true", help="price `compare.runs` × seeds, less what is finished")
    parser.add_argument("--fits", metavar="SIZE", help="does it fit into devices of this size, such as 80GB or 24GiB?")
    parser.add_argument("--no-probe", action="store_true", help="time nothing: no seconds in the plan")
    parser.add_argument("--json", action="store_true", help="everything, for machines")
    given = parser.parse_args(arguments)
    try:
        device_bytes = None if given.fits is None else device_size(given.fits)
        overrides: dict[str, Any] = dict(map(parse_override, given.set))
        params = checked_settings(overrides, given.compare)
        if not (given.no_probe or given.json):
            sys.stderr.write("timing a few steps of each kind of training on this machine…\n")
        plan = make_plan(params, compare=given.compare, device_bytes=device_bytes, probe=not given.no_probe)
    except ValueError as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(2)
    if given.json:
        sys.stdout.write(as_json(plan) + "\n")
    else:
        print_plan(plan)


if __name__ == "__main__":
    main()
