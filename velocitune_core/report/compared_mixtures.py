"""The mixtures of a comparison, to read and to copy, and the losses of sets that are only measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from velocitune_core.comparison.metrics import domains, runs_of
from velocitune_core.comparison.statistics import ComparisonSummary, estimate
from velocitune_core.comparison.tables import Row, estimate_text
from velocitune_core.contracts import ComparedRun
from velocitune_core.export.block import params_yaml
from velocitune_core.planned_weights import rounded
from velocitune_core.style.text import percent


def mean_mixtures(summary: ComparisonSummary) -> dict[str, dict[str, float]]:
    """Return by label the domain weights that batches were drawn with, in the mean over steps and seeds."""
    found = {}
    for label in summary.strategies:
        runs = runs_of(summary.comparison, label).values()
        names = domains(summary.comparison)
        found[label] = {name: float(np.mean([run.result.mean_domain_weights[name] for run in runs])) for name in names}
    return found


def mixture_rows(summary: ComparisonSummary) -> list[Row]:
    """Return the mean mixture of each label, a row per label; those of dynamic strategies are marked."""
    rows = []
    for label, weights in mean_mixtures(summary).items():
        changes = "changes" if summary.strategies[label].dynamic else "constant"
        cells = {name: percent(weight) for name, weight in weights.items()}
        rows.append({"strategy": label, "over the run": changes} | cells)
    return rows


def mixture_block(weights: Mapping[str, float]) -> str:
    """Return weights as parts of params.yaml under which a run holds them."""
    return params_yaml({name: str(weight) for name, weight in rounded(weights).items()})


def measured_rows(summary: ComparisonSummary) -> list[Row]:
    """Return the losses of sets without training text, a row per label with its difference to the baseline, or nothing.

    Differences are paired by seed. They are part of no average but those of objectives that name them.
    """
    comparison = summary.comparison
    names = sorted({name for run in comparison.runs for name in run.result.measured})
    if not names:
        return []
    rows = []
    if comparison.initial_measured:
        cells = {_loss(name): f"{comparison.initial_measured[name]:.3f}" for name in names}
        rows.append({"strategy": "base model"} | {key: cells.get(key, "–") for key in _columns(names)})
    baseline = runs_of(comparison, comparison.baseline)
    for label in summary.strategies:
        runs, row = runs_of(comparison, label), {"strategy": label}
        for name in names:
            row[_loss(name)] = estimate_text(estimate(_measured(runs, name).values()), "nats")
            pairs = _measured(baseline, name)
            differences = [loss - pairs[seed] for seed, loss in _measured(runs, name).items() if seed in pairs]
            own = label == comparison.baseline
            row[_difference(name)] = "–" if own else estimate_text(estimate(differences), "nats", sign=True)
        rows.append(row)
    return rows


def _measured(runs: Mapping[int, ComparedRun], name: str) -> dict[int, float]:
    return {seed: run.result.measured[name] for seed, run in runs.items() if name in run.result.measured}


def _loss(name: str) -> str:
    return f"{name}, loss"


def _difference(name: str) -> str:
    return f"{name}, to baseline"


def _columns(names: list[str]) -> list[str]:
    return [column for name in names for column in (_loss(name), _difference(name))]
