"""From proxy results to a target loss per domain, with the evidence it rests on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from velocitune_core import config
from velocitune_core.contracts import DomainTarget, Evidence, Flag, InitialLosses, Law, LossPoint, ProxyResult, Targets
from velocitune_core.scaling_law import ScalingLawFit, fit_scaling_law

PARAMETERS = 3  # of the law: with no more points than that, the fit has nothing left to be checked against


class TargetError(ValueError):
    """Proxy results that no target can be read from."""


def fit_targets(
    initial: InitialLosses, proxies: Sequence[ProxyResult], token_budget: int, settings: config.Targets
) -> Targets:
    """A target per domain: its law, fitted to the proxies' held-out losses, read at `token_budget` tokens.

    D is tokens of the whole mixture. Raises TargetError for fewer than three usable points or domains that differ.
    """
    points = _points(proxies, settings)
    if len({point.tokens for point in points}) < PARAMETERS:
        raise TargetError(
            f"targets.points '{settings.points}' gives {len(points)} usable points, a law needs at least {PARAMETERS} "
            "of different size; add proxies.fractions or run the failed proxies again"
        )
    for point in points:
        if set(point.losses) != set(initial.losses):
            raise TargetError(
                f"a proxy measured {sorted(point.losses)}, the base model {sorted(initial.losses)}; "
                "run the stages `initial` and `proxies` on the same domains"
            )
    domains = {name: _target(name, loss, points, token_budget, settings) for name, loss in initial.losses.items()}
    return Targets(domains=domains, token_budget=token_budget, level=settings.interval)


def _points(proxies: Sequence[ProxyResult], settings: config.Targets) -> list[LossPoint]:
    """The points of the laws, in order of tokens."""
    if not proxies:
        return []
    if settings.points == "final":
        return sorted((proxy.final for proxy in proxies), key=lambda point: point.tokens)
    return list(max(proxies, key=lambda proxy: proxy.tokens).points)


def _target(
    name: str, initial_loss: float, points: list[LossPoint], token_budget: int, settings: config.Targets
) -> DomainTarget:
    tokens = np.array([point.tokens for point in points])
    losses = np.array([point.losses[name] for point in points])
    law = fit_scaling_law(tokens, losses, bootstrap=settings.bootstrap)
    target = float(law.predict(token_budget))
    interval = law.interval(token_budget, settings.interval)
    return DomainTarget(
        target=target,
        evidence=Evidence(
            tokens=tokens.tolist(),
            losses=losses.tolist(),
            law=Law(E=law.E, B=law.B, beta=law.beta),
            interval=interval,
            leave_largest_out_error=_leave_largest_out_error(tokens, losses),
        ),
        flags=_flags(law, tokens, losses, target, interval, initial_loss, settings),
    )


def _leave_largest_out_error(tokens: np.ndarray, losses: np.ndarray) -> float | None:
    """(predicted − measured) / measured at the largest proxies, from a law that has not seen them."""
    largest = tokens == tokens.max()
    if len(np.unique(tokens[~largest])) < PARAMETERS:
        return None
    law = fit_scaling_law(tokens[~largest], losses[~largest])
    measured = float(losses[largest].mean())
    return (float(law.predict(tokens.max())) - measured) / measured


def _flags(
    law: ScalingLawFit,
    tokens: np.ndarray,
    losses: np.ndarray,
    target: float,
    interval: tuple[float, float] | None,
    initial_loss: float,
    settings: config.Targets,
) -> list[Flag]:
    first, last = losses[tokens == tokens.min()].mean(), losses[tokens == tokens.max()].mean()
    raised: dict[Flag, bool] = {
        "too_few_points": len(tokens) <= PARAMETERS,
        "at_bound": law.at_bound,
        "wide_interval": interval is not None and interval[1] - interval[0] > settings.wide_interval * target,
        "not_decreasing": bool(last >= first),
        "above_initial": target >= initial_loss,
    }
    return [flag for flag, is_raised in raised.items() if is_raised]
