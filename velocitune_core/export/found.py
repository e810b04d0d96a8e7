"""Read a mixture from what a pipeline wrote: results/weights.json, results/train.json, results/comparison.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from velocitune_core.contracts import ComparedRun, Comparison, Manifest, StartingWeights, TrainResult
from velocitune_core.export.mixture import DomainSize, ExportError, Mixture, Stage
from velocitune_core.export.sizes import DataSizes, read_counts, sizes_of
from velocitune_core.spelling import aside
from velocitune_core.style.text import tokens_text

SAME = 1e-9  # of a weight: two points of a run's weights closer than this are one stage


def read_mixture(
    path: Path, *, label: str | None = None, seed: int | None = None, manifest: Path | None = None
) -> Mixture:
    """Return the mixture that a file of results holds.

    Args:
        path: results/weights.json, results/train.json, or results/comparison.json with a label.
        label, seed: of a comparison; without a seed, the mean over the seeds of the label.
        manifest: of the data, with tokens and documents by domain: prepared/manifest.json, or counts of one's own
            (docs/EXPORT.md); None: sizes as far as the file has them.

    Raises ContractError for a malformed file, ExportError naming the field for one that holds no such mixture, and for
    a manifest of other data.
    """
    kind, name = _kind(path), f"{path.parent.name}/{path.name}".lstrip("/")
    if kind is not Comparison and (label is not None or seed is not None):
        given = f"label: {label!r}" if label is not None else f"seed: {seed}"
        raise ExportError(f"{given}: only a comparison has labels and seeds, and {name} is none; leave it out")
    if kind is StartingWeights:
        mixture = of_weights(StartingWeights.read(path), name)
    elif kind is TrainResult:
        mixture = of_training(TrainResult.read(path), name)
    else:
        mixture = of_label(Comparison.read(path), label, seed, name)
    if manifest is None:
        return mixture
    counts = read_counts(manifest)
    return with_manifest(mixture, Manifest.read(manifest)) if counts is None else with_sizes(mixture, counts)


def of_weights(weights: StartingWeights, name: str = "results/weights.json") -> Mixture:
    """Return the weights that a training starts from."""
    found = {"initial": "as configured", "search": "found by a search", "planned": "planned from a swarm of runs"}
    notes = []
    if not weights.held:
        notes.append(
            f"The training starts from these weights. What {weights.strategy} made of them is in results/train.json."
        )
    source = f"{name}: domain weights of the strategy {weights.strategy}, {found[weights.found_by]}"
    return Mixture(_normalised(weights.domain_weights, name), source, notes=notes)


def of_training(train: TrainResult, name: str = "results/train.json") -> Mixture:
    """Return the weights of a run, with its stages if they changed."""
    source = f"{name}: domain weights of the run {train.name}, strategy {train.strategy}, {_length(train)}"
    return _of_run(train, source)


def of_label(
    comparison: Comparison, label: str | None, seed: int | None = None, name: str = "results/comparison.json"
) -> Mixture:
    """Return the weights of a label of a comparison: of one seed with its stages, or their mean over all seeds.

    Raises ExportError for a label or a seed that is not there.
    """
    labels = list(dict.fromkeys(run.label for run in comparison.runs))
    if label is None:
        raise ExportError(f"label: a comparison has several; give one with --label: {', '.join(labels)}")
    if label not in labels:
        raise ExportError(
            f"label: {label!r}{aside(label, labels)} is none of the comparison; give one of {', '.join(labels)}"
        )
    runs = {run.seed: run for run in comparison.runs if run.label == label}
    if seed is not None and seed not in runs:
        raise ExportError(f"seed: {seed} has no run of {label!r}; give one of {', '.join(map(str, runs))}")
    if seed is None and len(runs) == 1:
        (seed,) = runs
    sizes = {domain: DomainSize(tokens) for domain, tokens in comparison.domain_tokens.items()}
    if seed is not None:
        train = runs[seed].result
        source = f"{name}: domain weights of the label {label}, seed {seed}, {_length(train)}"
        return replace(_of_run(train, source), sizes=sizes)
    return replace(_of_seeds(list(runs.values()), f"{name}: domain weights of the label {label}"), sizes=sizes)


def with_manifest(mixture: Mixture, manifest: Manifest) -> Mixture:
    """Return the mixture with the sizes of its domains as the manifest counts them.

    Raises ExportError for domains that the manifest lacks, and where a run's epochs say that its data was another.
    """
    sized = with_sizes(mixture, sizes_of(manifest))
    other = [
        f"manifest: {name} has {size.tokens} tokens, and the results were made from {mixture.sizes[name].tokens}; "
        "give the manifest of the same data"
        for name, size in sized.sizes.items()
        if name in mixture.sizes and mixture.sizes[name].tokens != size.tokens
    ]
    if other:
        raise ExportError("\n".join(other))
    return sized


def with_sizes(mixture: Mixture, sizes: DataSizes) -> Mixture:
    """Return the mixture with these sizes of its domains, such as those of the other trainer's data.

    Raises ExportError for domains that have none.
    """
    missing = sorted(set(mixture.shares) - set(sizes.domains))
    if missing:
        raise ExportError(
            f"manifest: lacks the domains {', '.join(missing)}; give the manifest of the data that the mixture is of"
        )
    own = {name: size for name, size in sizes.domains.items() if name in mixture.shares}
    return replace(mixture, sizes=own, sequence_length=sizes.sequence_length)


def _kind(path: Path) -> type[Comparison] | type[TrainResult] | type[StartingWeights]:
    """Return which of the three files it is, by its fields."""
    try:
        tree: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(
            f"from: {path}: no such file; give results/weights.json, results/train.json or a comparison"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ExportError(f"from: {path}: cannot be read as JSON: {error}; give a file of results") from None
    fields = {"runs": Comparison, "mean_domain_weights": TrainResult, "found_by": StartingWeights}
    for field, kind in fields.items():
        if isinstance(tree, dict) and field in tree:
            return kind
    raise ExportError(
        f"from: {path}: none of {', '.join(fields)} is in it; give results/weights.json, results/train.json or "
        "results/comparison.json"
    )


def _of_run(train: TrainResult, source: str) -> Mixture:
    stages = _stages(train)
    sizes = {
        name: DomainSize(round(train.tokens_per_domain[name] / epochs))
        for name, epochs in train.epochs_per_domain.items()
        if epochs > 0
    }
    shares = _normalised(train.mean_domain_weights, source)
    return Mixture(
        shares, source, stages, train.steps, train.tokens, trained_tokens=dict(train.tokens_per_domain), sizes=sizes
    )


def _of_seeds(runs: Sequence[ComparedRun], source: str) -> Mixture:
    """Return the mean of runs under several seeds; it has no stages."""
    results = [run.result for run in runs]
    names = list(results[0].mean_domain_weights)
    shares = {name: float(np.mean([each.mean_domain_weights[name] for each in results])) for name in names}
    trained = {name: float(np.mean([each.tokens_per_domain[name] for each in results])) for name in names}
    changed = any(_stages(each) for each in results)
    notes = ["The weights changed over the runs; this is their mean over steps and seeds."] if changed else []
    seeds = ", ".join(str(run.seed) for run in runs)
    source = f"{source}, mean over the seeds {seeds}, {_length(results[0])} each"
    first = results[0]
    return Mixture(
        _normalised(shares, source), source, (), first.steps, first.tokens, trained_tokens=trained, notes=notes
    )


def _stages(train: TrainResult) -> list[Stage]:
    """Return the stages of a run; none if its weights never changed."""
    found: list[Stage] = []
    for point in train.domain_weights:
        if point.step >= train.steps:
            continue  # an update after the last step was used by no batch
        if found and point.step == found[-1].step:
            found.pop()
        if not found or _differ(found[-1].shares, point.weights):
            found.append(Stage(point.step, _normalised(point.weights, f"step {point.step}")))
    return found if len(found) > 1 else []


def _differ(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return any(abs(one[name] - weight) > SAME for name, weight in other.items())


def _normalised(weights: Mapping[str, float], where: str) -> dict[str, float]:
    total = math.fsum(weights.values())
    if not total > 0 or any(weight < 0 or not math.isfinite(weight) for weight in weights.values()):
        raise ExportError(f"domain weights: {where}: {dict(weights)} are no shares; run the stage that made them again")
    return {name: weight / total for name, weight in weights.items()}


def _length(train: TrainResult) -> str:
    return f"{train.steps} steps, {tokens_text(train.tokens)} tokens"
