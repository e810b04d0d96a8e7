"""The page of a plan: its answer, its evidence, and the law itself, so that other mixtures can be tried."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

from markupsafe import Markup

from velocitune_core.contracts import SwarmRound
from velocitune_core.mixture_law import MixtureLaw, MixturePlan, Objective, Support, predict_mixture
from velocitune_core.mixture_law.law_sentences import doubts, plan_in_words
from velocitune_core.mixture_law.mixture_plan import Interval, MixturePrediction
from velocitune_core.mixture_law.trade_off_curve import TradeOffPoint
from velocitune_core.report.html import render_page
from velocitune_core.report.other_trainers import fillable_texts
from velocitune_core.report.plan_data import carried_law, page_data
from velocitune_core.report.swarm_rounds import round_rows
from velocitune_core.style.text import percent, signed

SCRIPTS = ("plan_law.js", "plan_charts.js", "plan.js", "wide.js")
RATES = {
    "loglinear": "How far a domain lowers the exponent of a set's loss, against the worst domain for that set; 1 is "
    "the best teacher of the row. Compare along a row only.",
    "transfer": "Exchange rates a_ij: what tokens of a domain (column) are worth to a set (row); 1 is the best teacher "
    "of the row. Compare along a row only: rows have different units. Hatched and in parentheses: the runs do not "
    "determine the rate, so it comes from the prior.",
    "bimix": "This law lets one domain teach each set. Hatched and in parentheses: the runs do not determine the rate.",
}


def plan_page(
    law: MixtureLaw,
    objective: Objective,
    plan: MixturePlan,
    *,
    support: Support | Any = None,
    domain_tokens: Mapping[str, float] | None = None,
    token_budget: float | None = None,
    trade_offs: Mapping[str, Sequence[TradeOffPoint]] | None = None,
    others: Mapping[str, Mapping[str, float]] | None = None,
    sentences: Sequence[str] | None = None,
    rounds: Sequence[SwarmRound] = (),
    title: str = "Which mixture to train on",
) -> str:
    """Return the page of a plan as HTML: one file, without network or server, that computes with the law in it.

        plan = optimise_mixture(law, objective)
        atomic_write_text(folder / "plan.html", plan_page(law, objective, plan))

    Its numbers are those of `predict_mixture(carried_law(law), objective, weights)`, to 1e-6, and its intervals of a
    run's loss those of `MixtureLaw.interval`. A law at the full budget (`at_full_budget`) is carried as such.

    Args:
        law, objective, plan, support: what `optimise_mixture` was given and what it returned.
        domain_tokens, token_budget: tokens of one epoch by domain, and of the planned run, for the epochs that are
            shown; None: those of the objective, if it has them.
        trade_offs: curves by the name of their guard, as `trade_off` returns them; None: computed for a guarded average
            (or by size), the set that is worst off, and forgetting if it is guarded, in about half a second each.
        others: weights of further mixtures by name, to be shown beside those of the plan.
        sentences: that the page begins with, as `Planned.explanation` has them; None: those of `plan_in_words`.
        rounds: in which the runs were made, if the swarm went on by what it had shown.
        title: the heading.

    Raises ValueError for a law with a residual process, which a page cannot carry.
    """
    carried = carried_law(law)
    plan = _with_others(plan, carried, objective, support, others or {})
    known = {"domain_tokens": domain_tokens, "token_budget": token_budget, "trade_offs": trade_offs}
    data = page_data(carried, objective, plan, support=support, **known)  # type: ignore[arg-type]
    data["formats"] = fillable_texts(law.domains)
    return render_page(
        "plan.html.jinja",
        [],
        title=title,
        sentences=_sentences(law, carried, plan, sentences),
        rounds=round_rows(rounds),
        **_shown(law, carried, objective, plan),
        **_scripts(data),
    )


def _with_others(
    plan: MixturePlan,
    law: MixtureLaw,
    objective: Objective,
    support: Support | Any,
    others: Mapping[str, Mapping[str, float]],
) -> MixturePlan:
    """Return the plan with predictions for further mixtures."""
    predicted = {
        name: predict_mixture(law, objective, weights, support=support, level=plan.level)
        for name, weights in others.items()
    }
    return replace(plan, mixtures=plan.mixtures | predicted)


def _shown(law: MixtureLaw, carried: MixtureLaw, objective: Objective, plan: MixturePlan) -> dict[str, Any]:
    """Return what the tables of the page show."""
    averages = objective.average_names()
    return {
        "plan": plan,
        "level": f"{100 * plan.level:.4g} %",
        "resamples": carried.resamples,
        "weights": _weight_rows(plan),
        "averages": averages,
        "mixtures": [_mixture_row(name, each, averages) for name, each in plan.mixtures.items()],
        "sets": law.sets,
        "rates": RATES[law.name],
        "moved": law.scale != 1 or bool(law.shift.any()),
    }


def _scripts(data: dict[str, Any]) -> dict[str, Any]:
    """Return style, scripts and what the scripts read."""
    return {
        "curves": data["curves"],
        "data": _script_json(data),
        "style": _template("plan.css"),
        "scripts": [_template(name) for name in SCRIPTS],
    }


def _sentences(
    law: MixtureLaw, carried: MixtureLaw, plan: MixturePlan, given: Sequence[str] | None
) -> list[tuple[str, bool]]:
    """Return what is said of a plan, each sentence with whether it is a reason to doubt the plan."""
    reasons = doubts(law)
    said = plan_in_words(law, plan) if given is None else given
    found = [(sentence, sentence in reasons) for sentence in said]
    if carried.resamples < law.resamples:
        found.append((f"This page carries {carried.resamples} of the law's {law.resamples} resamples.", True))
    return found


def _weight_rows(plan: MixturePlan) -> list[dict[str, str]]:
    baseline = plan.mixtures[plan.baseline].weights
    return [
        {
            "domain": name,
            "baseline": percent(baseline[name]),
            "weight": percent(weight),
            "range": _range(plan.spread[name]),
        }
        for name, weight in plan.weights.items()
    ]


def _range(each: Interval) -> str:
    return "–" if each.low is None or each.high is None else f"{100 * each.low:.1f} to {100 * each.high:.1f}"


def _mixture_row(name: str, each: MixturePrediction, averages: Sequence[str]) -> dict[str, Any]:
    worst = max(each.set_differences, key=lambda one: each.set_differences[one].value)
    return {
        "name": name,
        "differences": [_cells(each.differences[average]) for average in averages],
        "worst": f"{worst} {signed(each.set_differences[worst].value, 3)}",
        "guards": "kept" if each.keeps_guards else "broken",
        "covered": "covered" if each.inside else "not covered",
    }


def _cells(each: Interval) -> dict[str, str]:
    ends = "" if each.low is None or each.high is None else f"[{signed(each.low, 3)}, {signed(each.high, 3)}]"
    return {"value": signed(each.value, 3), "range": ends}


def _script_json(data: dict[str, Any]) -> Markup:
    """Return JSON that no name in it can end: jinja's `tojson` would sort the keys."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _template(name: str) -> Markup:
    """Return a style or a script of the page; they are ours and contain no tag that could end them."""
    return Markup(resources.files("velocitune_core.report").joinpath("templates", name).read_text(encoding="utf-8"))
