"""Weights of the runs of a swarm: drawn from keys of names, so that a larger swarm contains the smaller one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from velocitune_core.mixture.permutation import key, words
from velocitune_core.mixture_law.objective import ObjectiveError
from velocitune_core.mixture_law.objective_checks import is_number

Array = NDArray[np.float64]
CONCENTRATION = 1.5  # α of a domain with a mean share, of the Dirichlet distribution (benchmarks/swarm_design.py)
DECIMALS = 6
CANDIDATES = 8  # drawn for each run; the one farthest from all earlier runs is taken


def design_swarm(
    initial_weights: Mapping[str, float], *, runs: int, seed: int = 0, min_share: float = 0.01
) -> list[dict[str, float]]:
    """Return the domain weights of each run of a swarm; they sum to 1, and none is below `min_share`.

    Candidates are drawn from a Dirichlet distribution around √(w₀ · uniform), which lies between shares by size and
    equal shares. What a candidate gives a domain before normalisation depends on the seed, the number of the candidate
    and the domain's name. Each run is the one of its candidates that is farthest from w₀ and from all earlier runs
    (Mitchell, 1991; distances between √w). So more runs leave the first ones as they are, and the order of names does
    not matter. A further domain changes all weights; runs made without it stay usable: its weight is 0 in them.

    Args:
        initial_weights: w₀ by domain; a domain of weight 0 takes part with `min_share` and little more.
        runs: how many.
        seed: of the draws.
        min_share: least weight of every domain.

    Raises ObjectiveError for weights, a number of runs, or a least share with which there is no swarm.
    """
    _check(initial_weights, runs, min_share)
    names = sorted(initial_weights)
    initial = np.array([float(initial_weights[name]) for name in names])
    centre = np.sqrt(initial / initial.sum())
    alphas = np.maximum(CONCENTRATION * len(names) * centre / centre.sum(), 1e-3)
    runs = int(runs)
    count = runs * CANDIDATES
    draws = np.column_stack(
        [gammaincinv(a, _uniform(seed, name, count)) for a, name in zip(alphas, names, strict=True)]
    )
    shares = min_share + (1 - len(names) * min_share) * draws / draws.sum(axis=1, keepdims=True)
    chosen = rounded(_spread_out(shares.reshape(runs, CANDIDATES, len(names)), centre), min_share)
    return [{name: float(run[names.index(name)]) for name in initial_weights} for run in chosen]


def _spread_out(candidates: Array, first: Array) -> Array:
    """Return one candidate for each run (R, K), of candidates (R, C, K): the farthest from the runs before it.

    Args:
        first: (K,) √w of a mixture that is always among the runs.
    """
    chosen, roots = [], [first]
    for own in candidates:
        distances = np.linalg.norm(np.sqrt(own)[:, None] - np.array(roots), axis=-1).min(axis=1)  # (C,)
        chosen.append(own[distances.argmax()])
        roots.append(np.sqrt(chosen[-1]))
    return np.array(chosen)


def rounded(shares: Array, least: float) -> Array:
    """Round weights (R, K), so that no rounding error of a library decides what a run is."""
    found = np.maximum(shares.round(DECIMALS), least)
    rows, largest = np.arange(len(found)), found.argmax(axis=1)
    found[rows, largest] = 0.0
    found[rows, largest] = (1 - found.sum(axis=1)).round(DECIMALS + 6)
    return found


def _uniform(seed: int, name: str, count: int) -> Array:
    """Return a number in (0, 1) for each candidate (count,), which seed, name and its number decide."""
    drawn = words(key(seed, name, "swarm"), np.arange(count)) >> np.uint64(11)
    return (drawn.astype(float) + 0.5) * 2.0**-53


def _check(given: Mapping[str, float], runs: int, min_share: float) -> None:
    count, problems = len(given), []
    if texts := [name for name, weight in given.items() if not is_number(weight)]:
        problems.append(f"initial_weights of {texts[0]} is {given[texts[0]]!r}; give a number")
    elif count < 2:
        problems.append(f"initial_weights name {count} domains; a mixture has at least two")
    elif any(not 0 <= weight < np.inf for weight in given.values()) or not sum(given.values()) > 0:
        problems.append(f"initial_weights are {dict(given)}; they are at least 0, and one of them is above 0")
    if not (is_number(runs) and float(runs).is_integer() and runs >= 1):
        problems.append(f"runs is {runs!r}; a swarm has a whole number of runs, at least one")
    if not (is_number(min_share) and 0 <= min_share * count < 1):
        problems.append(
            f"min_share is {min_share} for {count} domains; it must be at least 0 and below {1 / max(count, 1):.4g}"
        )
    if problems:
        raise ObjectiveError("\n".join(problems))
