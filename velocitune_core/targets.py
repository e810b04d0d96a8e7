"""Fit a target loss per domain to proxy results, with the evidence for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import numpy as np

from velocitune_core import config
from velocitune_core.contracts import (
    DomainTarget,
    Evidence,
    Flag,
    InitialLosses,
    Law,
    LossPoint,
    OtherLaw,
    ProxyResult,
    Targets,
)
from velocitune_core.scaling_law import PARAMETERS, LawName, ScalingLawFit, fit_scaling_law

Domain = tuple[str, float]  # name, initial loss
MapDomains = Callable[[Callable[[Domain], DomainTarget], Iterable[Domain]], Iterable[DomainTarget]]


class TargetError(ValueError):
    """Proxy results from which no target can be predicted."""


def fit_targets(
    initial: InitialLosses,
    proxies: Sequence[ProxyResult],
    token_budget: int,
    settings: config.Targets,
    missing: Sequence[str] = (),
    map_domains: MapDomains = map,
) -> Targets:
    """Fit a law to each domain's held-out losses of the proxies and evaluate it at the token budget.

    Args:
        initial: held-out losses of the base model.
        proxies: results of the proxies that finished.
        token_budget: D at which laws are evaluated, tokens of the whole mixture.
        settings: section `targets` of params.yaml.
        missing: names of proxies that failed.
        map_domains: `map`, or a function that does the same on several cores.

    Raises TargetError for fewer than three usable points, domains that differ, or losses that no law can be fitted to.
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
    fit = partial(_target, points=points, token_budget=token_budget, settings=settings)
    domains = dict(zip(initial.losses, map_domains(fit, initial.losses.items()), strict=True))
    if missing:
        domains = {name: _flagged(domain, "missing_proxies") for name, domain in domains.items()}
    return Targets(
        domains=domains,
        token_budget=token_budget,
        level=settings.interval,
        missing_proxies=list(missing),
        measured=_measured(proxies),
    )


def _measured(proxies: Sequence[ProxyResult]) -> LossPoint | None:
    """Return the losses of the sets without training text after the largest proxies; None if there is no such set."""
    most = max(proxy.tokens for proxy in proxies)
    largest = [proxy for proxy in proxies if proxy.tokens == most]
    names = [name for name in largest[0].measured if all(name in proxy.measured for proxy in largest)]
    losses = {name: float(np.mean([proxy.measured[name] for proxy in largest])) for name in names}
    return LossPoint(step=largest[0].steps, tokens=most, losses=losses) if losses else None


def _flagged(domain: DomainTarget, flag: Flag) -> DomainTarget:
    return domain.model_copy(update={"flags": [*domain.flags, flag]})


def _points(proxies: Sequence[ProxyResult], settings: config.Targets) -> list[LossPoint]:
    """Return the points of the laws in order of tokens, without evaluations before the first step."""
    if not proxies:
        return []
    if settings.points == "final":
        return sorted((proxy.final for proxy in proxies), key=lambda point: point.tokens)
    return [point for point in max(proxies, key=lambda proxy: proxy.tokens).points if point.tokens > 0]


@dataclass(frozen=True)
class _Candidate:
    """One kind of law for one domain's points."""

    law: LawName
    initial_loss: float
    tokens: np.ndarray  # (P,)
    losses: np.ndarray  # (P,)

    def fit(self, *, bootstrap: int = 0) -> ScalingLawFit:
        return fit_scaling_law(
            self.tokens, self.losses, law=self.law, initial_loss=self.initial_loss, bootstrap=bootstrap
        )

    @cached_property
    def leave_largest_out_error(self) -> float | None:
        """(predicted − measured) / measured at the largest proxies for a law fitted to the others; None: too few."""
        largest = self.tokens == self.tokens.max()
        if len(np.unique(self.tokens[~largest])) < PARAMETERS:
            return None
        rest = replace(self, tokens=self.tokens[~largest], losses=self.losses[~largest])
        measured = float(self.losses[largest].mean())
        return (float(rest.fit().predict(self.tokens.max())) - measured) / measured

    def other(self, token_budget: int) -> OtherLaw:
        """Return the law and its target as the one not chosen."""
        fit = self.fit()
        target = float(fit.predict(token_budget))
        return OtherLaw(law=_law(fit), target=target, leave_largest_out_error=self.leave_largest_out_error)


def _target(domain: Domain, points: list[LossPoint], token_budget: int, settings: config.Targets) -> DomainTarget:
    name, initial_loss = domain
    tokens = np.array([point.tokens for point in points])
    losses = np.array([point.losses[name] for point in points])
    for loss in (initial_loss, *losses):
        if not (np.isfinite(loss) and loss > 0):
            raise TargetError(
                f"{name}: held-out loss {loss} must be positive and finite to fit a law; measure it again"
            )
    names = _laws_to_try(settings.law, tokens, losses, initial_loss)
    chosen, *others = sorted(
        (_Candidate(law, initial_loss, tokens, losses) for law in names),
        key=lambda candidate: abs(
            candidate.leave_largest_out_error or 0.0
        ),  # the order is kept where there is no error
    )
    fit = chosen.fit(bootstrap=settings.bootstrap)
    target = float(fit.predict(token_budget))
    interval = fit.interval(token_budget, settings.interval)
    return DomainTarget(
        target=target,
        evidence=Evidence(
            tokens=tokens.tolist(),
            losses=losses.tolist(),
            law=_law(fit),
            standard_errors=fit.standard_errors,
            interval=interval,
            leave_largest_out_error=chosen.leave_largest_out_error,
            other_law=others[0].other(token_budget) if others else None,
        ),
        flags=_flags(fit, tokens, losses, target, interval, initial_loss, settings),
    )


def _laws_to_try(
    wanted: LawName | Literal["auto"], tokens: np.ndarray, losses: np.ndarray, initial_loss: float
) -> tuple[LawName, ...]:
    """Return the laws to fit; not the anchored one for losses above the initial loss, from which it only falls."""
    if losses[tokens == tokens.max()].mean() >= initial_loss:
        return ("chinchilla",)
    return ("chinchilla", "anchored") if wanted == "auto" else (wanted,)


def _law(fit: ScalingLawFit) -> Law:
    return Law(kind=fit.law, E=fit.E, B=fit.B, beta=fit.beta, D0=fit.D0)


def _flags(
    fit: ScalingLawFit,
    tokens: np.ndarray,
    losses: np.ndarray,
    target: float,
    interval: tuple[float, float] | None,
    initial_loss: float,
    settings: config.Targets,
) -> list[Flag]:
    first, last = losses[tokens == tokens.min()].mean(), losses[tokens == tokens.max()].mean()
    gap = initial_loss - target
    raised: dict[Flag, bool] = {
        "too_few_points": len(tokens) <= PARAMETERS,
        "at_bound": fit.at_bound,
        "wide_interval": interval is not None and interval[1] - interval[0] > settings.wide_interval * gap > 0,
        "not_decreasing": bool(last >= first),
        "above_initial": target >= initial_loss,
    }
    return [flag for flag, is_raised in raised.items() if is_raised]
