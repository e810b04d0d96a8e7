"""What the page of a plan carries: the law, the objective and the runs as plain JSON, so that it computes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law import MixtureLaw, MixturePlan, Objective, Support
from velocitune_core.mixture_law.guarded_problem import Problem
from velocitune_core.mixture_law.named_guard import NamedGuard
from velocitune_core.mixture_law.objective import Limits
from velocitune_core.mixture_law.trade_off_curve import TradeOffPoint, curves_of
from velocitune_core.rounding import carried

Array = NDArray[np.float64]
MOST_PARAMETERS = 220_000  # of law and resamples together: about 3 MB


def carried_law(law: MixtureLaw) -> MixtureLaw:
    """Return the law with as many of its resamples as the page carries: all of them, unless sets and domains are many.

    Raises ValueError for a law with a residual process, which needs every run at every resample.
    """
    if law.residual is not None:
        raise ValueError(
            "plan page: the law has a residual process, which is too large for a page; fit the law of the page with "
            "residual=False, or read its predictions from MixtureLaw.predict"
        )
    count = min(law.resamples, max(MOST_PARAMETERS // (law.theta.size + 2 * len(law.sets)) - 1, 0))
    shifts = law.shift_samples[:count] if len(law.shift_samples) > 1 else law.shift_samples
    return replace(law, samples=law.samples[:count], shift_samples=shifts)


def page_data(
    law: MixtureLaw,
    objective: Objective,
    plan: MixturePlan,
    *,
    support: Support | object = None,
    domain_tokens: Mapping[str, float] | None = None,
    token_budget: float | None = None,
    trade_offs: Mapping[str, Sequence[TradeOffPoint]] | None = None,
) -> dict[str, Any]:
    """Return what the page's scripts read (templates/plan_law.js), as plain lists, strings and numbers.

    Args: as for `plan_page`; the law is one of `carried_law`.
    """
    problem = Problem.of(law, objective, support)
    region, domains = problem.support, law.domains
    tokens, budget = domain_tokens or objective.domain_tokens, token_budget or objective.token_budget
    repeatable = budget is not None and any(name in tokens for name in domains)
    if trade_offs is None:
        trade_offs = curves_of(law, objective, plan.mixtures, plan.baseline, support=support)  # type: ignore[arg-type]

    def row(weights: Mapping[str, float]) -> list[float]:
        return numbers(np.array([weights[name] for name in domains]))

    return {
        "law": _law(law),
        "level": plan.level,
        "average": plan.average,
        "averages": {name: shares.tolist() for name, shares in problem.terms.averages.items()},
        "baseline": {"name": plan.baseline, "weights": row(plan.mixtures[plan.baseline].weights)},
        "mixtures": [{"name": name, "weights": row(each.weights)} for name, each in plan.mixtures.items()],
        "optima": [row(each) for each in plan.optima],
        "spread": [[plan.spread[name].low, plan.spread[name].high] for name in domains],
        "guards": _Guards(law, objective, plan).rows(repeatable),
        "support": {name: numbers(getattr(region, name)) for name in ("low", "high", "centre", "precision")}
        | {"reach": region.reach},
        "epochs": {"budget": budget, "tokens": [tokens.get(name) for name in domains]} if repeatable else None,
        "runs": {
            "labels": list(law.runs.runs),
            "weights": numbers(law.runs.weights),
            "losses": numbers(law.scale * law.runs.losses + law.shift),  # moved to the law's budget, as the law is
            "predicted": numbers(law.scale * law.cross_validated + law.shift),
        },
        "evidence": [
            {"error": each.error * law.scale, "correlation": each.rank_correlation, "flags": list(each.flags)}
            for each in (law.evidence[name] for name in law.sets)
        ],
        "rates": exchange_rates(law),
        "curves": [_curve(guard, points, plan) for guard, points in trade_offs.items() if points],
    }


def _law(law: MixtureLaw) -> dict[str, Any]:
    """Return the law's parameters and its resamples', (1 + B) x I x P, as the script reads them."""
    theta = np.concatenate([law.theta[None], law.samples])
    drawn = theta.copy()
    positions = slice(0, 1) if law.name == "loglinear" else slice(None)  # of logarithms
    drawn[..., positions] = np.exp(theta[..., positions])
    shape = (law.resamples, len(law.sets))
    shifts = np.concatenate([np.broadcast_to(law.shift, shape[1:])[None], np.broadcast_to(law.shift_samples, shape)])
    return {
        "form": "loglinear" if law.name == "loglinear" else "transfer",  # bimix is a transfer law of one rate
        "name": law.name,
        "domains": list(law.domains),
        "sets": list(law.sets),
        "measured": [name not in law.domains for name in law.sets],  # without training text
        "scale": law.scale,
        "parameters": numbers(drawn),
        "shift": numbers(shifts),
        "noise": numbers(law.run_noise(shape)) if law.resamples else [],
    }


class _Guards:
    """The guards of the page: those of the objective, and those that it could have, without a limit."""

    def __init__(self, law: MixtureLaw, objective: Objective, plan: MixturePlan) -> None:
        self.law, self.objective = law, objective
        self.unit = {name: list(map(float, row)) for name, row in zip(law.sets, np.eye(len(law.sets)), strict=True)}
        self.prices = {(each.kind, each.about): each.gain / each.step for each in plan.limits if each.step}

    def rows(self, repeatable: bool) -> list[dict[str, Any]]:
        """Return one row per limit that can be set; a limit of None is no guard."""
        law, asked = self.law, self.objective
        rows = []
        if asked.initial_weights is not None:
            limits = dict(asked.averages_worse_than_static)
            for name in [*limits, *(name for name in asked.average_names()[1:] if name not in limits)]:
                shares = list(asked.average_shares(name, law.domains, law.sets).values())
                title = f"{name}, worse than static by at most"
                rows.append(self._row("average", title, "nats", limits.get(name), {name: {"shares": shares}}))
            parts = {name: {"shares": self.unit[name]} for name in law.sets}
            rows += self._rows("set", "{}, worse than static by at most", "nats", asked.worse_than_static, parts)
        retained = [name for name in asked.retained if name in asked.initial_losses]
        if isinstance(asked.forgetting, Mapping):
            retained = list(asked.forgetting)
        parts = {name: {"shares": self.unit[name], "reference": float(asked.initial_losses[name])} for name in retained}
        rows += self._rows("forgetting", "forgetting of {} at most", "nats", asked.forgetting, parts)
        shares = {name: {"domain": index} for index, name in enumerate(law.domains)}
        if repeatable:
            known = {name: part for name, part in shares.items() if name in asked.domain_tokens} or shares
            rows += self._rows("epochs", "epochs of {} at most", "epochs", asked.epochs, known)
        rows += self._rows("least_share", "weight of {} at least", "share", asked.least_share, shares)
        rows += self._rows("largest_share", "weight of {} at most", "share", asked.largest_share, shares)
        return rows

    def _rows(
        self, kind: str, title: str, unit: str, limits: Limits | None, parts: Mapping[str, dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return a row for all parts together, or one for each that has a limit of its own."""
        if not parts:
            return []
        if isinstance(limits, Mapping):
            return [
                self._row(kind, title.format(name), unit, limit, {name: parts[name]}) for name, limit in limits.items()
            ]
        every = next(iter(parts)) if len(parts) == 1 else "every set" if unit == "nats" else "every domain"
        return [self._row(kind, title.format(every), unit, limits, parts)]

    def _row(
        self, kind: str, title: str, unit: str, limit: float | None, parts: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any]:
        return {
            "kind": kind,
            "title": title,
            "unit": unit,
            "limit": limit,
            "price": max(self.prices.get((kind, name), 0.0) for name in parts),  # type: ignore[call-overload]
            "parts": [{"about": name, "reference": None, **part} for name, part in parts.items()],
        }


def exchange_rates(law: MixtureLaw) -> dict[str, Any]:
    """Return which domain teaches which set, "values" (I, K): exchange rates, or what lowers a log-linear exponent.

    "known" says of each whether the runs determine it; None where the law has no prior.
    """
    if law.name == "loglinear":
        slopes = law.theta[:, 1:]
        return {"values": numbers(slopes.max(axis=1, keepdims=True) - slopes), "known": None}
    known = [[law.evidence[name].known_rates.get(domain, True) for domain in law.domains] for name in law.sets]
    return {"values": numbers(np.exp(law.theta[:, 3:])), "known": known}


def _curve(guard: str, points: Sequence[TradeOffPoint], plan: MixturePlan) -> dict[str, Any]:
    """Return a trade-off curve: the limit of the guard against the difference of the average to static."""
    named = NamedGuard.of(guard)
    return {
        "kind": named.kind,
        "about": named.about,
        "guard": guard,
        "title": named.title,
        "points": [
            {"limit": point.limit, "y": point.differences[plan.average], "weights": list(point.weights.values())}
            for point in points
        ],
    }


def numbers(values: Array) -> list[Any]:
    """Return an array as nested lists with 11 significant digits, which keeps the page small."""
    flat = [carried(value) for value in np.asarray(values, dtype=float).ravel()]
    return np.array(flat).reshape(np.shape(values)).tolist()
