"""`velocitune export --to TRAINER`: write a found mixture as another trainer takes it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from velocitune_core.contracts import ContractError, Manifest, StartingWeights, TrainResult
from velocitune_core.export.block import commented
from velocitune_core.export.destination import Exported, export
from velocitune_core.export.formats import FORMATS
from velocitune_core.export.found import read_mixture, with_manifest
from velocitune_core.export.mixture import ExportError, Mixture
from velocitune_core.export.options import MANIFEST, destination, parser
from velocitune_core.export.realised import table
from velocitune_core.export.written import write_files

REFUSED = 2  # exit status
RESULTS = ("results/train.json", "results/weights.json")  # the first that is there, unless --from names a file
SAME = 1e-4  # of a weight; planned ones have four decimals


def main(argv: Sequence[str]) -> int:
    """Write the files, or print them without --out; return an exit status."""
    options = parser().parse_args(argv)
    try:
        results = _results(options)
        manifest = None if options.manifest is None else _there(options.workspace, options.manifest)
        mixture = _mixture(options, results, manifest)
        found = export(mixture, FORMATS[options.to], destination(options, list(mixture.shares)))
        summary = _summary(found)
        if options.out is None:
            printed = _printed(found)
            sys.stdout.write(printed)
            shown = sys.stdout.isatty() and commented(found.block.comment) in printed
            summary = [] if shown else summary  # once on a terminal, also where the file goes elsewhere
        else:
            inputs = [each for each in (results, manifest) if each is not None]
            written = write_files(mixture, found, options.out, inputs=inputs, force=options.force)
            sys.stdout.writelines(f"{path}\n" for path in written)
        sys.stderr.write("\n".join([f"{found.format.trainer}: {found.format.use}.", *summary]) + "\n")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0


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
