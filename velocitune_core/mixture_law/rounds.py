"""Whether a swarm needs more runs, and under which weights: where the optima of the resamples disagree most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.guarded_problem import Law
from velocitune_core.mixture_law.mixture_plan import MixturePlan
from velocitune_core.mixture_law.objective import Objective, ObjectiveError

Array = NDArray[np.float64]
LEAST_NOISE = 1e-3  # nats: what two runs of one mixture differ by at least


@dataclass(frozen=True)
class Round:
    """What is known after a round, and the runs that would tell most. Nats per token."""

    settled: bool  # the set of optima is tighter than asked
    regret: float  # of the recommended weights: exceeded in a twentieth of the resamples
    spread: float  # mean total variation of the resamples' optima to the recommended weights
    weights: list[dict[str, float]]  # of further runs, the most telling first; empty if settled
    gains: list[float]  # by how much each of them lowers the mean deviation of the average at the optima, expected


def next_round(
    law: Law,
    plan: MixturePlan,
    objective: Objective,
    *,
    runs: int,
    tolerance: float,
    noise: float = LEAST_NOISE,
    min_share: float = 0.0,
) -> Round:
    """Decide whether a plan is settled; if not, return the weights of further runs.

    Candidates are the optima of the resamples. Each next run is the candidate that lowers the variance of the average
    at all of them most, given the runs chosen before, if the resamples are taken as draws of a Gaussian process
    (greedy A-optimal design).

    Args:
        law: with resamples.
        plan: made from it, with resamples.
        objective: of the plan.
        runs: how many to choose at most.
        tolerance: the set of optima is tight enough when the regret of the recommended weights is at most this.
        noise: standard deviation of a run's average loss.
        min_share: least weight of every domain in the further runs.

    Raises ObjectiveError without resamples.
    """
    if not plan.optima or plan.regret is None or plan.regret.high is None:
        raise ObjectiveError("a round is decided by the optima of resamples; fit the law with bootstrap=100")
    optima = np.array([[each[name] for name in law.domains] for each in plan.optima])  # (B, K)
    recommended = np.array([plan.weights[name] for name in law.domains])
    spread = float(0.5 * np.abs(optima - recommended).sum(axis=1).mean())
    if plan.regret.high <= tolerance:
        return Round(True, plan.regret.high, spread, [], [])
    shares = np.array(list(objective.average_shares(plan.average, law.domains, law.sets).values()))
    candidates = min_share + (1 - optima.shape[1] * min_share) * optima
    predicted = law.resampled_losses(candidates) @ shares  # (B, candidates)
    relative = predicted - (law.resampled_losses(recommended) @ shares)[:, None]
    chosen, gains = _most_telling(relative, runs, noise)
    weights = [dict(zip(law.domains, map(float, candidates[index]), strict=True)) for index in chosen]
    return Round(False, plan.regret.high, spread, weights, gains)


def _most_telling(predicted: Array, runs: int, noise: float) -> tuple[list[int], list[float]]:
    """Return the candidates whose measurement lowers the variance at all of them most, and the fall in mean deviation.

    Args:
        predicted: (B, M) of B resamples at M candidates.
    """
    off = predicted - predicted.mean(axis=0)
    covariance = off.T @ off / max(len(off) - 1, 1)  # (M, M)
    chosen: list[int] = []
    gains: list[float] = []
    for _ in range(min(runs, len(covariance))):
        falls = (covariance**2).sum(axis=0) / (np.diag(covariance) + noise**2)
        falls[chosen] = -1.0
        best = int(falls.argmax())
        before = np.sqrt(np.maximum(np.diag(covariance), 0.0)).mean()
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / (covariance[best, best] + noise**2)
        chosen.append(best)
        gains.append(float(before - np.sqrt(np.maximum(np.diag(covariance), 0.0)).mean()))
    return chosen, gains
