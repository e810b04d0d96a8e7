"""From a table of finished runs (domain weights and held-out losses) to weights for the next one.

Fits a law of the losses to the weights, and finds the weights that are best for an objective, with predicted losses,
the evidence for them, and a page on which any other mixture can be tried. Nothing is trained.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from velocitune_core.cli.parser import Parser, path_argument
from velocitune_core.style.text import counted

if TYPE_CHECKING:
    from velocitune_core.fit.csv_tables import Runs

EXAMPLES = """
One table has a column weight/<domain> per domain, and loss/<set> per held-out set:

  velocitune fit runs.csv --objective objective.yaml

Columns with other names; what * stands for is the name of the domain or set:

  velocitune fit runs.csv --weights 'share_*' --losses 'eval/*_loss'

Two tables, joined by their column run (or run_id, id, index, name), such as those of olmix and RegMix. Columns are
weight/* and loss/*, or else all with numbers, without seeds, steps, hours and the like:

  velocitune fit ratios.csv metrics.csv --objective objective.yaml

objective.yaml has fields of an objective; all may be left out:

  average: macro                          # or by_size, or shares by set: {code: 2, web: 1}
  initial_weights: {code: 0.5, web: 0.5}  # what would be used otherwise: static training
  worse_than_static: 0.02                 # no set worse than under static training by more than 0.02 nats
"""
REFUSED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, or 2 for input that cannot work."""
    given = parser().parse_args(argv)
    from velocitune_core.fit.csv_tables import read_csv_runs  # slow imports wait for valid arguments
    from velocitune_core.fit.objective_file import read_objective
    from velocitune_core.fit.result import PAGE, PLAN, WEIGHTS, FitResult, make_folder

    try:
        objective = read_objective(given.objective)
        runs = read_csv_runs(given.tables, weights=given.weights, losses=given.losses)
        sys.stderr.writelines(f"{line}\n" for line in _read_as(runs))
        make_folder(given.out)  # before the work
        found = FitResult.of(runs, objective, law=given.law, bootstrap=given.bootstrap, seed=given.seed)
        found.write(given.out, ", ".join(map(str, given.tables)), str(given.objective or "macro"))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"velocitune fit: {error}\n")
        return REFUSED
    sys.stdout.write("\n".join(found.lines()) + "\n")
    sys.stderr.write(
        f"\n{given.out / PAGE}: open it in a browser to try other mixtures\n{given.out / PLAN}: all of this as JSON\n"
        f"{given.out / WEIGHTS}: the weights; for another trainer: velocitune export --to NAME --from "
        f"{shlex.quote(str(given.out / WEIGHTS))}\n"
    )
    return 0


def _read_as(runs: Runs) -> Iterator[str]:
    """Yield what a table was read as."""
    domains, sets = runs.weights.columns, runs.losses.columns
    count = counted(len(runs.weights[domains[0]]), "run")
    yield f"{count} of {counted(len(domains), 'domain')} and {counted(len(sets), 'held-out set')}"
    yield f"domains: {', '.join(domains)}"
    yield f"held-out sets: {', '.join(sets)}"
    if runs.unused:
        yield f"columns that are not used: {', '.join(runs.unused)}"
    yield from runs.notes


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="velocitune fit",
        description=__doc__,
        epilog=textwrap.dedent(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "tables", type=path_argument, nargs="+", metavar="CSV", help="one table of runs, or two: weights, losses"
    )
    parser.add_argument(
        "--objective", type=path_argument, metavar="YAML", help="what is wanted (default: the macro-average)"
    )
    parser.add_argument(
        "--out", type=path_argument, metavar="DIR", default=Path("fit"), help="folder to write (default: fit)"
    )
    parser.add_argument("--weights", metavar="COLUMNS", help="columns with domain weights (default: weight/*)")
    parser.add_argument("--losses", metavar="COLUMNS", help="columns with held-out losses (default: loss/*)")
    parser.add_argument(
        "--law",
        choices=("transfer", "loglinear", "bimix", "auto"),
        default="transfer",
        help="form of the law; auto: the one with the smallest cross-validated error (default: %(default)s)",
    )
    parser.add_argument(
        "--bootstrap",
        type=_count,
        default=100,
        metavar="N",
        help="resamples of the runs, for intervals; 0 for none (default: %(default)s)",
    )
    parser.add_argument("--seed", type=_count, default=0, help="of the resamples (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
