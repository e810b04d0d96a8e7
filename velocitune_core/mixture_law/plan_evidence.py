"""Put a plan together: predictions with intervals, what binds at which price, and what any mixture could gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velocitune_core.in_words import amount_text, percent
from velocitune_core.mixture_law.at_hand import AtHand
from velocitune_core.mixture_law.constrained import Solution
from velocitune_core.mixture_law.guarded_problem import Law, Losses, Problem, Terms
from velocitune_core.mixture_law.limits import limits
from velocitune_core.mixture_law.mixture_plan import Gain, Interval, MixturePlan, MixturePrediction
from velocitune_core.mixture_law.objective import BY_SIZE, Objective, ObjectiveError
from velocitune_core.mixture_law.references import STATIC, UNIFORM, reference_mixtures
from velocitune_core.mixture_law.room import FEASIBLE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """All solutions of an optimisation."""

    laws: tuple[Losses, ...]  # the resamples
    optimum: Solution  # of the law itself
    recommended: Solution
    recommended_problem: Problem  # that the recommended weights solve
    free: Solution  # without guards and bounds
    resampled: Sequence[Solution | None]  # optima of the resamples
    free_resampled: Sequence[Solution]
    at_hand: AtHand


def assemble(
    law: Law, problem: Problem, found: Found, objective: Objective, *, temperatures: Sequence[float], level: float
) -> MixturePlan:
    """Return the plan of a solved problem."""
    terms = problem.terms
    references = reference_mixtures(terms.static, len(terms.domains), temperatures)
    baseline = STATIC if terms.static is not None else UNIFORM
    predict = Predictions(law, problem, len(found.laws), references[baseline], level)
    mixtures = {
        "recommended": predict.of(found.recommended.weights),
        "optimum": predict.of(found.optimum.weights),
        "without guards": predict.of(found.free.weights),
        **{name: predict.of(weights) for name, weights in references.items()},
    }
    optima = np.array([each.weights for each in found.resampled if each is not None]).reshape(-1, len(terms.domains))
    cheap = {name: mixtures[name] for name in references}
    recommended = found.recommended.weights
    return MixturePlan(
        law=law.name,
        average=objective.average_name,
        baseline=baseline,
        weights=predict.named(recommended),
        rule=_rule(found),
        mixtures=mixtures,
        limits=limits(found.recommended_problem, found.recommended, found.laws, found.at_hand, convex=law.convex),
        most=_most(problem, found, cheap, level, guarded=True),
        most_without_guards=_most(problem, found, cheap, level, guarded=False),
        optima=[predict.named(each) for each in optima],
        spread=_spread(terms.domains, recommended, optima, level),
        regret=_regret(problem, found, level),
        indistinguishable=_indistinguishable(predict, recommended, cheap) if found.laws else [],
        infeasible_resamples=sum(each is None for each in found.resampled),
        proven=found.optimum.proven and law.convex,
        level=level,
        given=found.recommended.given,
        notes=_notes(law, problem),
    )


def _rule(found: Found) -> str:
    given = found.recommended.given
    if given and found.recommended.alone:
        return f"{given}, since no mixture within the reach of an optimum keeps the guards and bounds"
    if given:
        return f"{given}, predicted to be better than any mixture within the reach of an optimum"
    return "least mean regret over the resamples" if found.laws else "optimum of the law, which has no resamples"


def _notes(law: Law, problem: Problem) -> list[str]:
    """Return sentences on what the numbers of a plan leave out."""
    terms, notes = problem.terms, []
    if BY_SIZE in terms.averages and (without := [name for name in terms.domains if name not in terms.sets]):
        notes.append(f"'{BY_SIZE}' leaves out {', '.join(without)}: no held-out set has the name.")
    evidence, scale = getattr(law, "evidence", {}), getattr(law, "scale", 1.0)
    for name in (name for name, each in evidence.items() if "measured_only" in each.flags):
        notes.append(
            f"{name} is only measured: no domain has its text, so all that is known of it is what the domains teach. "
            f"Its law misses runs that were left out by {amount_text(scale * evidence[name].error, 4)} nats, the mean "
            f"of the other runs by {amount_text(scale * evidence[name].baseline_error, 4)}. {_counts(terms, name)}."
        )
    if not getattr(law, "drift_drawn", True):
        notes.append(
            "How much differences change from the swarm's budget to the full one is not in these intervals: a swarm "
            "at a second, smaller fraction would say it."
        )
    return notes


def _counts(terms: Terms, name: str) -> str:
    """Return how much of the average that is minimised a set is."""
    average, share = next(iter(terms.averages)), terms.average[terms.sets.index(name)]
    return f"It is {percent(share, 0)} of the average '{average}'" if share else f"It is no part of '{average}'"


class Predictions:
    """Predict mixtures under a law and its resamples, as differences to a baseline mixture too."""

    def __init__(self, law: Law, problem: Problem, resamples: int, baseline: Array, level: float) -> None:
        if not 0 < level < 1:
            raise ObjectiveError(f"level is {level}; it is a share between 0 and 1: 0.95 for 95 %")
        self.law, self.problem, self.resamples, self.baseline, self.level = law, problem, resamples, baseline, level

    def named(self, weights: Array) -> dict[str, float]:
        """Return weights (K,) by domain."""
        return dict(zip(self.problem.terms.domains, map(float, weights), strict=True))

    def all_losses(self, weights: Array) -> Array:
        """Return losses (1 + B, I) under the law and its resamples."""
        own = self.law.losses(weights)[None]
        return np.concatenate([own, self.law.resampled_losses(weights)[: self.resamples]]) if self.resamples else own

    def interval(self, values: Array) -> Interval:
        """Return the interval of values (1 + B,), of which the first is the law's."""
        return interval(values[0], values[1:], self.level)

    def of(self, weights: Array) -> MixturePrediction:
        """Return all predictions for one mixture (K,)."""
        terms, losses = self.problem.terms, self.all_losses(weights)
        of_runs = self.law.interval(self.named(weights), self.level) if self.resamples else {}
        differences = losses - self.all_losses(self.baseline)
        kept = bool(self.problem.room.keeps_bounds(weights))
        return MixturePrediction(
            weights=self.named(weights),
            losses={
                name: Interval(float(losses[0, index]), *(float(end) for end in of_runs.get(name, ())))
                for index, name in enumerate(terms.sets)
            },
            average=self.interval(losses @ terms.average),
            differences={name: self.interval(differences @ shares) for name, shares in terms.averages.items()},
            set_differences={name: self.interval(differences[:, index]) for index, name in enumerate(terms.sets)},
            distance=float(self.problem.support.distance(weights)),
            keeps_guards=kept and bool((self.problem.excess(weights) <= 10 * FEASIBLE).all()),
        )


def interval(value: float, resampled: Array, level: float) -> Interval:
    """Return a value with quantiles of its resamples (B,)."""
    if len(resampled) == 0:
        return Interval(float(value))
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def _most(
    problem: Problem, found: Found, cheap: dict[str, MixturePrediction], level: float, *, guarded: bool
) -> Gain | None:
    """Return what the optimum gains over the best reference that the runs cover; each resample has its own optimum.

    Covered references are among the mixtures that an optimum is chosen from, so no gain is negative.
    """
    best = found.optimum if guarded else found.free
    covered = [name for name, each in cheap.items() if each.inside and (each.keeps_guards or not guarded)]
    if not covered:
        return None
    name = min(covered, key=lambda each: cheap[each].average.value)
    reference = np.array([cheap[name].weights[domain] for domain in problem.terms.domains])
    each_best = found.resampled if guarded else found.free_resampled
    gains = [
        float(problem.terms.average @ (law.losses(reference) - law.losses(own.weights)))
        for law, own in zip(found.laws, each_best, strict=True)
        if own is not None
    ]
    return Gain(name, interval(cheap[name].average.value - best.value, np.array(gains), level))


def _spread(domains: Sequence[str], recommended: Array, optima: Array, level: float) -> dict[str, Interval]:
    return {name: interval(recommended[index], optima[:, index], level) for index, name in enumerate(domains)}


def _regret(problem: Problem, found: Found, level: float) -> Interval | None:
    """Return what the recommended weights lack to each resample's own optimum, nats: the mean, and quantiles."""
    lacks = [
        float(problem.terms.average @ (law.losses(found.recommended.weights) - law.losses(own.weights)))
        for law, own in zip(found.laws, found.resampled, strict=True)
        if own is not None
    ]
    return interval(float(np.mean(lacks)), np.array(lacks), level) if lacks else None


def _indistinguishable(predict: Predictions, recommended: Array, cheap: dict[str, MixturePrediction]) -> list[str]:
    """Return the references that keep the guards and may be as good: the interval of the difference holds 0."""
    own, names = predict.all_losses(recommended) @ predict.problem.terms.average, []
    for name, reference in cheap.items():
        weights = np.array([reference.weights[domain] for domain in predict.problem.terms.domains])
        gap = predict.interval(predict.all_losses(weights) @ predict.problem.terms.average - own)
        if gap.low is not None and gap.high is not None and reference.keeps_guards and gap.low <= 0 <= gap.high:
            names.append(name)
    return names
