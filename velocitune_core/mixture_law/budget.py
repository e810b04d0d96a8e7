"""From the budget of a swarm to the full budget: what carries over is differences to the initial weights.

A law is fitted to runs of a fraction of the data and steps. E, B and β of a fourfold budget are others, and laws that
tie them together in tokens predict full runs worse than the differences of one fraction do (docs/MIXTURES.md). So the
full loss is that of static training, from its own law over tokens, plus the difference that the swarm's law predicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from velocitune_core.mixture_law.law import MixtureLaw
from velocitune_core.mixture_law.table import Array, MixtureLawError, read_weights


def at_full_budget(
    law: MixtureLaw,
    initial_weights: Mapping[str, float],
    static_losses: Mapping[str, float] | None = None,
    *,
    effect: float = 1.0,
    earlier: MixtureLaw | None = None,
) -> MixtureLaw:
    """Return the law moved to the full budget: static loss + effect · (L(w) − L(w₀)).

    Its intervals contain how much differences change with the budget, if a law of an earlier fraction says it.

    Args:
        law: fitted to a swarm at a fraction of the budget.
        initial_weights: w₀ by domain, with which static training runs.
        static_losses: by set, loss of static training at the full budget, measured or from its law over tokens; None:
            the moved law predicts differences to static training, 0 at w₀.
        effect: how much larger differences are than in the swarm: 1, or `effect_size` for a swarm of a sibling.
        earlier: law of a swarm at a smaller fraction, with the same domains and sets.

    Raises MixtureLawError for missing sets or domains, an effect that is not positive, or laws of unlike columns.
    """
    at = read_weights(law.domains, initial_weights)
    if not (np.isfinite(effect) and effect > 0):
        raise MixtureLawError(f"effect {effect} must be positive and finite; 1 keeps the differences of the swarm")
    if static_losses is not None and (missing := sorted(set(law.sets) - set(static_losses))):
        raise MixtureLawError(f"static_losses: sets {missing} are missing; give the loss of every set of the law")
    levels = np.array([0.0 if static_losses is None else static_losses[name] for name in law.sets])
    drift = np.zeros(len(law.sets)) if earlier is None else budget_drift(law, earlier, at)
    return replace(
        law,
        scale=effect * law.scale,
        shift=levels - effect * (law.losses(at) - law.shift),
        shift_samples=levels - effect * (law.resampled_losses(at) - law.shift_samples),
        noise=np.sqrt((effect * law.noise) ** 2 + drift**2),
    )


def budget_drift(law: MixtureLaw, earlier: MixtureLaw, initial_weights: Array) -> Array:
    """Return how much differences to w₀ (K,) change from an earlier fraction, (I,): root mean square over the runs."""
    if (law.domains, law.sets) != (earlier.domains, earlier.sets):
        raise MixtureLawError(
            f"earlier: its domains {earlier.domains} and sets {earlier.sets} are not those of the law, {law.domains} "
            f"and {law.sets}; fit both to the same columns"
        )
    now, before = (each.losses(law.runs.weights) - each.losses(initial_weights) for each in (law, earlier))
    return np.sqrt(((now - before) ** 2).mean(axis=0))


def effect_size(law: MixtureLaw, weights: object, losses: Mapping[str, object]) -> float:
    """Return how much larger differences between runs of the full model are than the law of its sibling predicts.

    Args:
        law: fitted to a swarm of a sibling.
        weights, losses: a few runs of the model itself, as for `fit_mixture_law`, at the swarm's fraction; two or more.

    The factor is one for all sets: least squares of centred losses on centred predictions.
    """
    predicted = law.predict(weights)
    reached = {name: np.atleast_1d(np.asarray(losses[name], dtype=float)) for name in law.sets}
    if any(len(reached[name]) < 2 or reached[name].shape != predicted[name].shape for name in law.sets):
        raise MixtureLawError("effect_size: give two runs or more, each with all weights and all losses")
    centred = np.concatenate([predicted[name] - predicted[name].mean() for name in law.sets])
    target = np.concatenate([reached[name] - reached[name].mean() for name in law.sets])
    return float(centred @ target / (centred @ centred))
