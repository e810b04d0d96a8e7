"""The options of `velocitune export`."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from velocitune_core.cli.parser import Parser, path_argument
from velocitune_core.export.destination import Destination
from velocitune_core.export.formats import FORMATS
from velocitune_core.export.mixture import ExportError
from velocitune_core.export.sizes import EXAMPLE
from velocitune_core.spelling import aside

MANIFEST = Path("prepared/manifest.json")  # in a workspace
DIGITS = 18  # of a number that is given
EXAMPLES = """\
In a workspace, for OLMo-core, from the training that was run there:

  velocitune export --to olmo-core --paths 's3://data/{domain}/*.npy' --out mixture.yaml

Anywhere, from the weights that `velocitune fit` found, for a run of 3 billion tokens:

  velocitune export --to megatron --from fit/weights.json --tokens 3e9 --out blend.txt
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog="velocitune export",
        description="Write a found mixture as another trainer takes it, in its units, with the tokens and epochs of\n"
        "each domain beside it. Without --out it is printed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--to", required=True, choices=list(FORMATS), help="the other trainer")
    _add_results(parser)
    parser.add_argument("--out", type=_file, metavar="FILE", help="file to write, from the current folder")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace --out, and files beside it, whatever is in them; otherwise only an earlier export",
    )
    parser.add_argument(
        "--paths",
        nargs="+",
        default=[],
        metavar="PATH",
        help="where the other trainer's data lies: a template such as 'data/{domain}.jsonl', or domain=PATH, or both",
    )
    _add_other_run(parser)
    return parser


def destination(options: argparse.Namespace, domains: Collection[str]) -> Destination:
    """Return the other run that the options describe, for a mixture of these domains.

    Raises ExportError for places that contradict each other.
    """
    return Destination(
        paths=_paths(options.paths, domains),
        unit=options.unit,
        tokens=options.tokens,
        steps=options.steps,
        batch_sequences=options.batch_sequences,
        schedule=options.schedule,
        max_stages=options.max_stages,
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which mixture it is, and of which data."""
    parser.add_argument(
        "--from",
        dest="results",
        type=path_argument,
        metavar="FILE",
        help="results/weights.json, results/train.json or results/comparison.json of a workspace, or fit/weights.json "
        "of `velocitune fit`; default: results/train.json, or else results/weights.json, of the workspace",
    )
    parser.add_argument("--label", help="of a comparison: the label whose mixture is taken")
    parser.add_argument("--seed", type=_whole, help="of a comparison: the run under this seed, not the mean of all")
    parser.add_argument(
        "--workspace",
        type=path_argument,
        default=Path(),
        metavar="DIR",
        help="of results and manifest; default: the current one",
    )
    parser.add_argument(
        "--manifest",
        type=path_argument,
        metavar="FILE",
        help=f"of the data; default: {MANIFEST} of the workspace. Also counts of your own, as YAML: {EXAMPLE}",
    )


def _add_other_run(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the other trainer draws, for how long, and in how many stages."""
    parser.add_argument(
        "--unit", choices=("sequences", "documents"), help="what the other trainer draws; default: its own"
    )
    lengths = {
        "--tokens": "of the other run, such as 3e9; default: from --steps, or those of the results",
        "--steps": "of the other run; default: from --tokens, or those of the results",
        "--batch-sequences": "per step of the other run",
        "--max-stages": "join neighbouring stages until there are so many",
    }
    for name, text in lengths.items():
        parser.add_argument(name, type=_whole, metavar="N", help=text)
    parser.add_argument(
        "--schedule",
        choices=("auto", "stages", "mean"),
        default="auto",
        help="of weights that changed over a run: stages where the trainer has them and their mean elsewhere (auto), "
        "or one of the two",
    )


def _whole(text: str) -> int:
    """Return a whole number, also from text such as 3e9."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or number.adjusted() > DIGITS or number != number.to_integral_value():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number; give one such as 3000000000, or 3e9")
    return int(number)


def _file(text: str) -> Path:
    """Return the path of a file that is to be written."""
    if text.endswith("/") or Path(text).name in ("", ".."):
        raise argparse.ArgumentTypeError(f"{text!r} names a folder; give the name of a file, such as mixture.yaml")
    return path_argument(text)


def _paths(given: Sequence[str], domains: Collection[str]) -> Mapping[str, str]:
    """Return paths by domain, and a template under the empty name."""
    found: dict[str, str] = {}
    for each in given:
        name, separator, path = each.partition("=")
        if not separator or (name not in domains and "{domain}" in each and {*name} & {*"/:{"}):
            name, path = "", each
        elif name not in domains and "{domain}" in path:
            raise ExportError(
                f"paths: {each!r}: {name!r}{aside(name, domains)} is no domain of the mixture; its domains are "
                f"{', '.join(domains)}. A template for all domains begins with a folder: './{each}'"
            )
        if name in found:
            raise ExportError(f"paths: {each!r}: the second for {name or 'all domains'}; give one")
        found[name] = path
    return found
