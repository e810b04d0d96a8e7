"""What would another mixture give? Predictions for any weights, by the same rules as for those of a plan."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from velocitune_core.mixture_law.guarded_problem import Law, Problem
from velocitune_core.mixture_law.mixture_plan import MixturePrediction
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.plan_evidence import Predictions
from velocitune_core.mixture_law.support import Support, Table


def predict_mixture(
    law: Law,
    objective: Objective,
    weights: Mapping[str, float],
    *,
    support: Support | Table | None = None,
    level: float = 0.95,
) -> MixturePrediction:
    """Return the predictions for one mixture: losses, differences and averages with intervals, and whether it is kept.

    Differences are to static training, or to equal shares if the objective has no initial weights.

    Args:
        law, objective, support, level: as for `optimise_mixture`.
        weights: by domain, every one of the law's; normalised.

    Raises ObjectiveError for an objective that contradicts itself or the law, ValueError for weights of other domains.
    """
    if sorted(weights) != sorted(law.domains):
        raise ValueError(f"weights: domains are {', '.join(law.domains)}; got {', '.join(weights)}; give each a weight")
    problem, count = Problem.of(law, objective, support), len(law.domains)
    shares = np.array([weights[name] for name in law.domains], dtype=float)
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError("weights must be numbers of at least 0, and one of them above 0")
    baseline = np.full(count, 1 / count) if problem.terms.static is None else problem.terms.static
    return Predictions(law, problem, law.resamples, baseline, level).of(shares / shares.sum())
