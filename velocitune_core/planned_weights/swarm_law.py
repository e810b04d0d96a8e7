"""The law of a swarm, and the same law at the full budget of the model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from velocitune_core.contracts import SwarmRun, Targets
from velocitune_core.mixture_law.budget import EffectSize, MovedLaw, at_full_budget, effect_of
from velocitune_core.mixture_law.law import LawName, MixtureLaw, fit_mixture_law
from velocitune_core.mixture_law.sets_of_more_runs import with_sets_of
from velocitune_core.planned_weights.static_levels import static_levels


def largest_law(runs: Sequence[SwarmRun], law: LawName, bootstrap: int = 0) -> MixtureLaw:
    """Return the law of the largest runs of a swarm. Raises MixtureLawError for runs that no law can be fitted to."""
    return _law_at(largest(runs), runs, law, bootstrap)


def largest(runs: Sequence[SwarmRun]) -> float:
    """Return the fraction of the largest runs of a swarm."""
    return max(run.fraction for run in runs if run.use == "law")


def full_law(
    fitted: MixtureLaw,
    runs: Sequence[SwarmRun],
    initial_weights: Mapping[str, float],
    targets: Targets,
    *,
    sibling: bool = False,
    drift: bool = True,
) -> MovedLaw:
    """Return the law of the largest runs, moved to the full budget, where static training reaches the targets.

    Differences of a sibling's swarm are multiplied by their effect size, if runs of the model itself show it.

    Args:
        sibling: whether the swarm trains a sibling of the model.
        drift: whether intervals contain what differences change by between the two largest sizes of runs.
    """
    smaller = sorted({run.fraction for run in runs if run.use == "law"})[:-1] if drift else []
    earlier = _law_at(smaller[-1], runs, cast("LawName", fitted.name)) if smaller else None
    known = static_levels(fitted, runs, initial_weights, targets, sibling=sibling)
    effect = sibling_effect(fitted, runs) or EffectSize(1.0)
    moved = at_full_budget(
        fitted, initial_weights, known, effect=effect.value, effect_error=effect.error, earlier=earlier
    )
    return replace(moved, drift_drawn=True) if largest(runs) == 1 else moved  # at the full budget nothing drifts


def sibling_effect(fitted: MixtureLaw, runs: Sequence[SwarmRun]) -> EffectSize | None:
    """Return how much larger the model's differences are than its sibling's; None unless two runs of it show it."""
    own = _different([run for run in runs if run.use == "effect" and run.fraction == largest(runs)])
    return effect_of(fitted, *_columns(own, fitted.sets)) if len(own) > 1 else None


def _law_at(fraction: float, runs: Sequence[SwarmRun], law: LawName, bootstrap: int = 0) -> MixtureLaw:
    """Return a law of the runs of one size.

    A set that earlier runs measured too, before a domain was added, is fitted to them as well; the law's own runs, and
    so the mixtures that it covers, are the present ones.
    """
    chosen = _different([run for run in runs if run.fraction == fraction and run.use != "effect"])
    present, earlier = ([run for run in chosen if run.use == use] for use in ("law", "earlier"))
    fitted = fit_mixture_law(*_columns(present, sorted(present[0].losses)), law=law, bootstrap=bootstrap)
    measured_by: dict[tuple[int, ...], list[str]] = {}
    for name in fitted.sets:
        measured_by.setdefault(tuple(i for i, run in enumerate(earlier) if name in run.losses), []).append(name)
    for numbers, sets in measured_by.items():
        if numbers:
            columns = _columns([*present, *(earlier[number] for number in numbers)], sets)
            more = fit_mixture_law(*columns, law=cast("LawName", fitted.name), bootstrap=bootstrap)
            fitted = with_sets_of(fitted, more)
    return fitted


def _columns(runs: Sequence[SwarmRun], sets: Sequence[str]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return weights by domain and losses by set, a value per run."""
    weights = {name: [run.domain_weights[name] for run in runs] for name in runs[0].domain_weights} if runs else {}
    return weights, {name: [run.losses[name] for run in runs] for name in sets}


def _different(runs: Sequence[SwarmRun]) -> list[SwarmRun]:
    """Return the runs without those that took the very batches of another: short runs have few whole sequences."""
    found: dict[tuple[float, ...], SwarmRun] = {}
    for run in runs:
        found.setdefault((*run.domain_weights.values(), *run.losses.values()), run)
    return list(found.values())
