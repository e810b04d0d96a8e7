"""Whether a swarm needs more runs, and under which weights: where the optima of the resamples disagree most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.guarded_problem import Law
from velocitune_core.mixture_law.mixture_plan import MixturePlan
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.swarm_design import design_swarm, rounded
from velocitune_core.mixture_law.table import SAME_MIXTURE

Array = NDArray[np.float64]
POOL, POOL_SEED = 64, 1_000_003  # the seed is none that a swarm has


@dataclass(frozen=True)
class Round:
    """What is known after a round, and the runs that would say most. Nats per token."""

    settled: bool  # the set of optima is tighter than asked
    regret: float | None  # of the recommended weights: exceeded in 2.5 % of the resamples; None: none has an optimum
    spread: float  # mean total variation of the resamples' optima to the recommended weights
    weights: list[dict[str, float]]  # of further runs, those first that say most; empty if settled
    gains: list[float]  # by how much each of them lowers the mean deviation of the average at the optima, expected


def next_round(
    law: Law,
    plan: MixturePlan,
    objective: Objective,
    *,
    runs: int,
    tolerance: float,
    noise: float | None = None,
    min_share: float = 0.01,
    tried: Sequence[Mapping[str, float]] | None = None,
) -> Round:
    """Decide whether a plan is settled; if not, return the weights of further runs.

    Candidates are the optima of the resamples, and mixtures all over the simplex. Each next run is the candidate whose
    losses would lower the variance of the average at the optima most, given the runs chosen before, if the resamples
    are taken as draws of a Gaussian process for each set (greedy A-optimal design).

    Args:
        law: with resamples.
        plan: made from it, with resamples.
        objective: of the plan.
        runs: how many to choose at most.
        tolerance: the set of optima is tight enough when the regret of the recommended weights is at most this.
        noise: standard deviation of a run's loss of a set; None: what the law found of each set.
        min_share: least weight of every domain in the further runs.
        tried: weights that no further run gets; None: those of the law's runs.

    A plan is settled if regret is at most the tolerance in 97.5 % of the resamples. A resample in which no mixture
    keeps the guards counts as one with more.

    Raises ObjectiveError without resamples.
    """
    if not law.resamples or not (plan.optima or plan.infeasible_resamples):
        raise ObjectiveError("a round is decided by the optima of resamples; fit the law with bootstrap=100")
    recommended = np.array([plan.weights[name] for name in law.domains])
    optima = _rows(plan.optima, law.domains) if plan.optima else recommended[None]  # (B, K)
    spread = float(0.5 * np.abs(optima - recommended).sum(axis=1).mean())
    regret = None if plan.regret is None else plan.regret.high
    broken = plan.infeasible_resamples / (plan.infeasible_resamples + len(plan.optima))
    if regret is not None and regret <= tolerance and broken <= (1 - plan.level) / 2:
        return Round(True, regret, spread, [], [])
    shares = np.array(list(objective.average_shares(plan.average, law.domains, law.sets).values()))
    candidates = np.vstack([min_share + (1 - optima.shape[1] * min_share) * optima, _pool(law, objective, min_share)])
    candidates = _untried(candidates, law.runs.weights if tried is None else _rows(tried, law.domains))
    to_know = law.resampled_losses(optima) - law.resampled_losses(recommended)[:, None]  # (B, M, I)
    deviation = shares * (law.noise if noise is None else noise)
    chosen, gains = _most_informative(to_know * shares, law.resampled_losses(candidates) * shares, deviation, runs)
    weights = [dict(zip(law.domains, each, strict=True)) for each in rounded(candidates[chosen], min_share).tolist()]
    return Round(False, regret, spread, weights, gains)


def _rows(mixtures: Sequence[Mapping[str, float]], domains: Sequence[str]) -> Array:
    """Return weights (M, K) in the order of `domains`."""
    return np.array([[each[name] for name in domains] for each in mixtures]).reshape(-1, len(domains))


def _untried(candidates: Array, tried: Array) -> Array:
    """Return the candidates (C, K) that differ from all mixtures tried (R, K) and from each other."""
    kept = list(tried)
    for each in candidates:
        if not kept or 0.5 * np.abs(np.array(kept) - each).sum(axis=1).min() > SAME_MIXTURE:
            kept.append(each)
    return np.array(kept[len(tried) :]).reshape(-1, candidates.shape[1])


def _pool(law: Law, objective: Objective, min_share: float) -> Array:
    """Return mixtures all over the simplex (POOL, K): their losses may say more than the optima themselves."""
    initial = objective.initial_shares() or dict.fromkeys(law.domains, 1.0)
    drawn = design_swarm(initial, runs=POOL, seed=POOL_SEED, min_share=min_share)
    return _rows(drawn, law.domains)


def _most_informative(to_know: Array, measured: Array, noise: Array, runs: int) -> tuple[list[int], list[float]]:
    """Return the candidates whose measurement lowers the variance at the optima most, and the fall in mean deviation.

    Args:
        to_know: (B, M, I) weighted losses of the optima, to those of the recommended mixture, under B resamples.
        measured: (B, C, I) weighted losses of the candidates.
        noise: (I,) of a measurement, weighted.
    """
    count = to_know.shape[1]
    off = np.concatenate([to_know, measured], axis=1)
    off = off - off.mean(axis=0)
    covariance = np.einsum("bmi,bni->imn", off, off) / max(len(off) - 1, 1)  # (I, M + C, M + C), sets on their own
    chosen: list[int] = []
    gains: list[float] = []
    for _ in range(min(runs, measured.shape[1])):
        spread = covariance.diagonal(axis1=1, axis2=2)[:, count:] + (noise**2)[:, None] + 1e-300  # (I, C)
        falls = ((covariance[:, :count, count:] ** 2).sum(axis=1) / spread).sum(axis=0)
        falls[chosen] = -1.0
        best = int(falls.argmax())
        before = _deviation(covariance, count)
        column = covariance[:, :, count + best]
        covariance = covariance - column[:, :, None] * column[:, None] / spread[:, best, None, None]
        chosen.append(best)
        gains.append(before - _deviation(covariance, count))
    return chosen, gains


def _deviation(covariance: Array, count: int) -> float:
    """Return the mean over the optima of the standard deviation of their average."""
    return float(np.sqrt(np.maximum(covariance.diagonal(axis1=1, axis2=2)[:, :count].sum(axis=0), 0.0)).mean())
