"""From the budget of a swarm to the full budget: what carries over is differences to the initial weights.

A law is fitted to runs of a fraction of the data and steps. E, B and β of a fourfold budget are others, and laws that
tie them together in tokens predict full runs worse than the differences of one fraction do (docs/MIXTURES.md). So the
full loss is that of static training, from its own law over tokens, plus the difference that the swarm's law predicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real

import numpy as np
from scipy.special import ndtri

from velocitune_core.mixture_law.fit_sets import SetFitter
from velocitune_core.mixture_law.law import MixtureLaw
from velocitune_core.mixture_law.table import Array, MixtureLawError, read_weights, row_order

DRIFT_SEED, EFFECT_SEED = 0, 1
LEAST_EFFECT = 0.05  # of a resample, as a share of the effect: an effect size is positive


@dataclass(frozen=True)
class EffectSize:
    """How much larger differences between runs of the model are than the law of its sibling predicts."""

    value: float
    error: float | None = None  # standard error, by leaving out one run at a time; None: fewer than three runs
    runs: int = 0


@dataclass(frozen=True)
class MovedLaw(MixtureLaw):
    """A law at another budget than its runs'."""

    of_differences: bool = False  # it predicts differences to static training, not losses
    drift_drawn: bool = False  # its resamples contain how differences change with the budget


def at_full_budget(
    law: MixtureLaw,
    initial_weights: Mapping[str, float],
    static_losses: Mapping[str, float] | None = None,
    *,
    effect: float = 1.0,
    effect_error: float | None = None,
    earlier: MixtureLaw | None = None,
) -> MovedLaw:
    """Return the law moved to the full budget: static loss + effect · (L(w) − L(w₀)).

    With a law of an earlier fraction, the resamples are those of runs whose differences to w₀ drift from fraction to
    full budget as far as they did between the fractions. So everything that is read from resamples contains the drift:
    intervals of losses and differences, `kept_in`, regret.

    Args:
        law: fitted to a swarm at a fraction of the budget.
        initial_weights: w₀ by domain, with which static training runs.
        static_losses: by set, loss of static training at the full budget, measured or from its law over tokens; None:
            the moved law predicts differences to static training, 0 at w₀.
        effect: how much larger differences are than in the swarm: 1, or `effect_size` for a swarm of a sibling.
        effect_error: its standard error, which the resamples then contain (`effect_of`); None: it is taken as known.
        earlier: law of a swarm at a smaller fraction, with the same domains and sets.

    Raises MixtureLawError for missing sets or domains, static losses that are no numbers, an effect that is not
    positive, or laws of unlike columns.
    """
    at = read_weights(law.domains, initial_weights)
    if not (isinstance(effect, Real) and np.isfinite(effect) and effect > 0):
        raise MixtureLawError(f"effect {effect} must be positive and finite; 1 keeps the differences of the swarm")
    levels = np.zeros(len(law.sets)) if static_losses is None else _levels(law, static_losses)
    drifted = law if earlier is None else replace(law, samples=_drifted(law, _change(law, earlier, at), at))
    if effect_error:
        drifted = replace(drifted, samples=_of_other_effects(drifted, effect_error / effect))
    moved = replace(
        drifted,
        scale=effect * law.scale,
        shift=levels - effect * (law.losses(at) - law.shift),
        shift_samples=levels - effect * (drifted.resampled_losses(at) - law.shift_samples),
        noise=effect * law.noise,
    )
    known = earlier is not None or (isinstance(law, MovedLaw) and law.drift_drawn)
    parts = {each.name: getattr(moved, each.name) for each in fields(MixtureLaw)}
    return MovedLaw(**parts, of_differences=static_losses is None, drift_drawn=known)


def budget_drift(law: MixtureLaw, earlier: MixtureLaw, initial_weights: Array) -> Array:
    """Return how much differences to w₀ (K,) change from an earlier fraction, (I,): root mean square over the runs."""
    return np.sqrt((_change(law, earlier, initial_weights) ** 2).mean(axis=0))


def effect_size(law: MixtureLaw, weights: object, losses: Mapping[str, object]) -> float:
    """Return how much larger differences between runs of the full model are than the law of its sibling predicts.

    Arguments and errors are those of `effect_of`, which says how sure it is, too.
    """
    return effect_of(law, weights, losses).value


def effect_of(law: MixtureLaw, weights: object, losses: Mapping[str, object]) -> EffectSize:
    """Return the effect size of a sibling's swarm, and its standard error.

    Args:
        law: fitted to a swarm of a sibling.
        weights, losses: a few runs of the model itself, as for `fit_mixture_law`, at the swarm's fraction; two or more.

    The factor is one for all sets: least squares of centred losses on centred predictions. Its error is the jackknife's
    over runs, as all sets of a run share its noise.

    Raises MixtureLawError for sets that are missing, fewer than two runs, runs that the law predicts alike, and an
    effect that is not positive.
    """
    if missing := sorted(set(law.sets) - set(losses)):
        raise MixtureLawError(f"effect_size: losses of {missing} are missing; give every set of the law")
    predicted = law.predict(weights)
    reached = {name: np.atleast_1d(np.asarray(losses[name], dtype=float)) for name in law.sets}
    if any(len(reached[name]) < 2 or reached[name].shape != predicted[name].shape for name in law.sets):
        raise MixtureLawError("effect_size: give two runs or more, each with all weights and all losses")
    if wrong := [name for name in law.sets if not np.isfinite(reached[name]).all()]:
        raise MixtureLawError(f"effect_size: losses of {wrong} are no numbers; leave these runs out")
    x, y = (np.stack([table[name] for name in law.sets], axis=1) for table in (predicted, reached))  # (R, I)
    order = row_order(x, y)
    x, y = x[order], y[order]
    if not np.abs(x - x.mean(axis=0)).max() > 1e-9:
        raise MixtureLawError("effect_size: the law predicts the same losses for all runs; give runs of other weights")
    value, count = _ratio(x, y), len(x)
    if not value > 0:
        raise MixtureLawError(
            f"effect_size: differences between the runs are {value:.2f} times those that the law of the sibling "
            "predicts; they contradict each other, so plan with a swarm of the model itself"
        )
    if count < 3:
        return EffectSize(value, None, count)
    left_out = np.array([_ratio(np.delete(x, run, axis=0), np.delete(y, run, axis=0)) for run in range(count)])
    error = np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum())
    return EffectSize(value, float(error), count)


def _ratio(x: Array, y: Array) -> float:
    """Return the slope of centred y on centred x, both (R, I)."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return float((x * y).sum() / max((x * x).sum(), 1e-300))


def _of_other_effects(law: MixtureLaw, error: float) -> Array:
    """Return the parameters of the resamples (B, I, P), each times a draw of the effect over the effect (1 ± error).

    Draws are the quantiles of a normal distribution in random order: their mean is 0, so they move no recommendation.
    """
    count = law.resamples
    drawn = 1 + error * ndtri((np.random.default_rng(EFFECT_SEED).permutation(count) + 0.5) / count)
    return law.form.scaled(law.samples, np.maximum(drawn, LEAST_EFFECT)[:, None])


def _levels(law: MixtureLaw, static_losses: Mapping[str, float]) -> Array:
    if missing := sorted(set(law.sets) - set(static_losses)):
        raise MixtureLawError(f"static_losses: sets {missing} are missing; give the loss of every set of the law")
    given = [static_losses[name] for name in law.sets]
    if wrong := [n for n, x in zip(law.sets, given, strict=True) if not (isinstance(x, Real) and np.isfinite(x))]:
        raise MixtureLawError(f"static_losses: those of {wrong} are no numbers; give the loss in nats per token")
    return np.array(given, dtype=float)


def _change(law: MixtureLaw, earlier: MixtureLaw, at: Array) -> Array:
    """Return by how much differences to a mixture (K,) changed from an earlier law, at the runs: (R, I) nats."""
    if (law.domains, law.sets) != (earlier.domains, earlier.sets):
        raise MixtureLawError(
            f"earlier: its domains {earlier.domains} and sets {earlier.sets} are not those of the law, {law.domains} "
            f"and {law.sets}; fit both to the same columns"
        )
    now, before = (each.losses(law.runs.weights) - each.losses(at) for each in (law, earlier))
    return now - before


def _drifted(law: MixtureLaw, change: Array, at: Array) -> Array:
    """Return the parameters of the resamples (B, I, P), each refitted to its own losses and a drift.

    A drift is linear in w − w₀, with the covariance between sets, and the size over the runs, of the change (R, I)
    that was seen. That is one draw of k directions, hence Student's t. Draws come in pairs of opposite sign, so that
    drift moves no recommendation.
    """
    if not law.resamples:
        return law.samples
    runs, count, random = law.runs.weights, law.resamples, np.random.default_rng(DRIFT_SEED)
    off = runs - at
    sets = _root(change.T @ change / len(runs))
    domains = _root(np.asarray(np.linalg.pinv(off.T @ off / len(runs)), dtype=float))
    k = max(np.linalg.matrix_rank(off, tol=1e-6), 1)
    half = (count + 1) // 2
    drawn = random.standard_normal((half, len(sets), len(domains))) / np.sqrt(random.chisquare(k, (half, 1, 1)))
    slopes = np.stack([drawn, -drawn], axis=1).reshape(-1, *drawn.shape[1:])[:count]
    drift = off @ domains @ np.swapaxes(sets @ slopes, 1, 2)  # (B, R, I)
    own = np.stack([law.form.losses(theta, runs) for theta in law.samples])
    spread = law.runs.losses.std(axis=0)
    fitter = SetFitter(law.form, runs, np.where(spread > 1e-12, spread, 0.0))
    return fitter.refit(own + drift / law.scale, np.ones((count, len(runs))), law.theta)


def _root(matrix: Array) -> Array:
    """Return A with A·Aᵀ = matrix, which is symmetric and positive semi-definite."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0.0))
