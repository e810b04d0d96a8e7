"""The bounds of domains' weights that an objective sets, and which of its fields each comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from velocitune_core.mixture_law.objective import Limits, Objective


class ShareBounds(NamedTuple):
    """Least and largest weight of one domain."""

    domain: str
    low: float
    high: float
    high_from: str  # "largest_share", "epochs", or "" where nothing limits it
    shares_per_epoch: float  # how much the weight rises when one more epoch is allowed; 0 unless from epochs
    low_shared: bool = False  # whether the bound is one number for all domains
    high_shared: bool = False


def by_name(limits: Limits | None, names: Sequence[str]) -> dict[str, float]:
    """Return a limit for each name that has one: a number applies to all names."""
    if limits is None:
        return {}
    return dict(limits) if isinstance(limits, Mapping) else dict.fromkeys(names, float(limits))


def epoch_caps(objective: Objective, domains: Sequence[str]) -> dict[str, float]:
    """Return the share of the run that each domain fills when it is repeated as often as allowed."""
    if objective.token_budget is None:
        return {}
    tokens = objective.domain_tokens
    limits = by_name(objective.epochs, domains)
    return {name: limit * tokens[name] / objective.token_budget for name, limit in limits.items() if name in tokens}


def share_bounds(objective: Objective, domains: Sequence[str]) -> list[ShareBounds]:
    """Return the bounds of every domain, in the order of `domains`."""
    least, largest = by_name(objective.least_share, domains), by_name(objective.largest_share, domains)
    caps = epoch_caps(objective, domains)
    bounds = []
    for name in domains:
        high, cap = largest.get(name, 1.0), caps.get(name, 1.0)
        source = "epochs" if cap < min(high, 1.0) else "largest_share" if high < 1.0 else ""
        slope = (
            objective.domain_tokens[name] / objective.token_budget
            if source == "epochs" and objective.token_budget
            else 0.0
        )
        of_high = objective.epochs if source == "epochs" else objective.largest_share
        shared = [each is not None and not isinstance(each, Mapping) for each in (objective.least_share, of_high)]
        bounds.append(ShareBounds(name, least.get(name, 0.0), min(high, cap), source, slope, *shared))
    return bounds
