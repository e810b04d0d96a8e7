"""`velocitune export --to TRAINER`: write a found mixture as another trainer takes it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from velocitune_core.contracts import ContractError, Manifest, StartingWeights, TrainResult
from velocitune_core.export.destination import Destination, Exported, export
from velocitune_core.export.formats import FORMATS
from velocitune_core.export.found import read_mixture, with_manifest
from velocitune_core.export.mixture import ExportError, Mixture
from velocitune_core.export.realised import as_json, table
from velocitune_core.export.sizes import EXAMPLE
from velocitune_core.files import write_text

REFUSED = 2  # exit status
RESULTS = ("results/train.json", "results/weights.json")  # the first that is there, unless --from names a file
MANIFEST = Path("prepared/manifest.json")  # in a workspace
SAME = 1e-4  # of a weight; planned ones have four decimals
BESIDE = "-realised.json"  # added to the name of the file, without its suffix


def main(argv: Sequence[str]) -> int:
    """Write the files, or print them without --out; return an exit status."""
    options = parser().parse_args(argv)
    try:
        results = _results(options)
        manifest = None if options.manifest is None else _there(options.workspace, options.manifest)
        mixture = _mixture(options, results, manifest)
        found = export(mixture, FORMATS[options.to], _destination(options))
        if options.out is None:
            sys.stdout.write(_printed(found))
        else:
            for path in write_files(mixture, found, options.out, inputs=filter(None, [results, manifest])):
                sys.stdout.write(f"{path}\n")
        sys.stderr.write("\n".join([f"{found.format.trainer}: {found.format.use}.", *_summary(found)]) + "\n")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0


def write_files(mixture: Mixture, found: Exported, out: Path, *, inputs: Iterable[Path] = ()) -> list[Path]:
    """Write an export, and what it gives each domain beside it; return the paths.

    Raises ExportError, and writes nothing, where that would replace one of the inputs or other results; OSError.
    """
    texts = {out.with_name(f"{out.stem}{added}{out.suffix}"): text for added, text in found.files.items()}
    beside = as_json(mixture, found.block, found.format, found.rows, found.notes)
    texts[out.with_name(f"{out.stem}{BESIDE}")] = json.dumps(beside, indent=2, ensure_ascii=False) + "\n"
    given = {path.resolve() for path in inputs}
    if kept := [str(path) for path in texts if path.resolve() in given or _is_results(path)]:
        raise ExportError(f"out: {', '.join(kept)}: results of Velocitune are not replaced; give another name")
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def _is_results(path: Path) -> bool:
    """Return whether a file is one that a stage wrote for the next."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and "schema_version" in tree


def _printed(found: Exported) -> str:
    if len(found.files) == 1:
        return next(iter(found.files.values()))
    return "".join(f"# {added.strip('-')}\n{text}" for added, text in found.files.items())


def _summary(found: Exported) -> list[str]:
    """Return the lines that the file has in its comment, or would have."""
    return [*found.notes, *table(found.rows, found.block)]


def _results(options: argparse.Namespace) -> Path:
    """Return the file of results."""
    workspace = options.workspace
    if options.results is not None:
        return _there(workspace, options.results)
    there = [workspace / name for name in RESULTS if (workspace / name).is_file()]
    if not there:
        raise ExportError(
            f"from: neither {' nor '.join(RESULTS)} is in {workspace}; give --from FILE or --workspace DIR"
        )
    return there[0]


def _there(workspace: Path, path: Path) -> Path:
    """Return a path in the workspace, or from the current folder if only that is there."""
    return path if path.is_file() and not (workspace / path).is_file() else workspace / path


def _mixture(options: argparse.Namespace, results: Path, manifest: Path | None) -> Mixture:
    """Return the mixture of the results, on the manifest given or else on one that is there and fits."""
    mixture = read_mixture(results, label=options.label, seed=options.seed, manifest=manifest)
    notes = [] if options.results else list(_other_weights(results, options.workspace / RESULTS[1]))
    if manifest is not None:
        return replace(mixture, notes=[*mixture.notes, *notes])
    unfit: list[str] = []
    for folder in dict.fromkeys((options.workspace, results.parent.parent)):
        found = folder / MANIFEST
        if found.is_file():
            try:
                mixture, unfit = with_manifest(mixture, Manifest.read(found)), []
                break
            except ValueError as error:
                unfit.append(f"{found} does not fit and is not used: {str(error).splitlines()[0]}.")
    return replace(mixture, notes=[*mixture.notes, *notes, *unfit])


def _other_weights(results: Path, weights: Path) -> Iterator[str]:
    """Yield a note if found weights lie beside a training that did not start from them, and are not exported."""
    if results == weights or not weights.is_file():
        return
    try:
        found = StartingWeights.read(weights)
    except ContractError as error:
        yield f"Not compared with the weights of the training: {str(error).splitlines()[0].rstrip(':')}."
        return
    started = next((point.weights for point in TrainResult.read(results).domain_weights), {})
    others = any(abs(started.get(name, 0.0) - weight) > SAME for name, weight in found.domain_weights.items())
    if others and found.found_by != "initial":
        yield f"{weights} has weights that were found for another training; --from {RESULTS[1]} exports them."


def _destination(options: argparse.Namespace) -> Destination:
    return Destination(
        paths=_paths(options.paths),
        unit=options.unit,
        tokens=options.tokens,
        steps=options.steps,
        batch_sequences=options.batch_sequences,
        schedule=options.schedule,
        max_stages=options.max_stages,
    )


def _paths(given: Sequence[str]) -> Mapping[str, str]:
    """Return paths by domain, and a template under the empty name."""
    found: dict[str, str] = {}
    for each in given:
        domain, separator, path = each.partition("=")
        name, value = ("", each) if "{domain}" in each or not separator else (domain, path)
        if name in found:
            raise ExportError(f"paths: {each!r}: the second for {name or 'all domains'}; give one")
        found[name] = value
    return found


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(
        prog="velocitune export",
        description="Write a found mixture as another trainer takes it, in its units, with the tokens and epochs of "
        "each domain beside it. Without --out it is printed.",
    )
    parser.add_argument("--to", required=True, choices=list(FORMATS), help="the other trainer")
    parser.add_argument(
        "--from",
        dest="results",
        type=Path,
        metavar="FILE",
        help="results/weights.json, results/train.json or results/comparison.json; default: results/train.json, or "
        "else results/weights.json, of the workspace",
    )
    parser.add_argument("--label", help="of a comparison: the label whose mixture is taken")
    parser.add_argument("--seed", type=int, help="of a comparison: the run under this seed, not the mean of all")
    parser.add_argument(
        "--workspace",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="of results and manifest; default: the current one",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help=f"of the data; default: {MANIFEST} of the workspace. Also counts of your own, as YAML: {EXAMPLE}",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write, from the current folder")
    parser.add_argument(
        "--paths",
        nargs="+",
        default=[],
        metavar="PATH",
        help="where the other trainer's data lies: a template such as 'data/{domain}.jsonl', or domain=PATH, or both",
    )
    _add_other_run(parser)
    return parser


def _add_other_run(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the other trainer draws, for how long, and in how many stages."""
    parser.add_argument(
        "--unit", choices=("sequences", "documents"), help="what the other trainer draws; default: its own"
    )
    parser.add_argument(
        "--tokens", type=int, metavar="N", help="of the other run; default: from --steps, or those of the results"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of the other run; default: from --tokens, or those of the results"
    )
    parser.add_argument("--batch-sequences", type=int, metavar="N", help="per step of the other run")
    parser.add_argument(
        "--schedule",
        choices=("auto", "stages", "mean"),
        default="auto",
        help="of weights that changed over a run: stages where the trainer has them and their mean elsewhere (auto), "
        "or one of the two",
    )
    parser.add_argument("--max-stages", type=int, metavar="N", help="join neighbouring stages until there are so many")
