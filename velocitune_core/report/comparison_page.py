"""A comparison of strategies as a self-contained HTML page, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from velocitune_core.comparison.figures import final, mixtures, over_tokens
from velocitune_core.comparison.metrics import METRICS, domains, learnt, retained, wall_seconds
from velocitune_core.comparison.narrative import outcome
from velocitune_core.comparison.statistics import ComparisonSummary, summarise
from velocitune_core.comparison.tables import (
    cost_rows,
    domain_rows,
    downstream_rows,
    note_of_marks,
    raw_rows,
    result_rows,
)
from velocitune_core.contracts import Comparison, Manifest
from velocitune_core.report.compared_mixtures import mean_mixtures, measured_rows, mixture_block, mixture_rows
from velocitune_core.report.compared_plans import (
    PlanOutcome,
    best_in_words,
    objective_rows,
    outcome_in_words,
    outcome_rows,
    plan_outcomes,
    plan_rows,
)
from velocitune_core.report.figures import compared_plans
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.report.headline import comparison_answer
from velocitune_core.report.html import ReportFigure, render_page
from velocitune_core.report.line_prices import line_price, price_in_words, price_rows
from velocitune_core.report.other_trainers import label_blocks
from velocitune_core.report.run_facts import Tile, duration
from velocitune_core.report.shades import shades_of_differences
from velocitune_core.style.text import counted, listed, tokens_text

WIDTH = 420  # of a panel that has half a row or a phone, pixels
LINES = 330  # of a panel of curves whose names stand beside them, at least
SAME = 2e-3  # of a weight, by which two mixtures are the same
_CAPTIONS = {  # figure → title, how to read it
    "frontier_planes": (
        "Against the frontier of constant mixtures",
        "The line is what constant mixtures (grey, the stronger the more even) reach; only a strategy below it has "
        "gained. A filled colour is a gain whose interval excludes zero. The line is drawn through the means, while "
        "verdicts compare each run with the mixtures of its own seed; bars are 95 % intervals of the difference to the "
        "baseline of the same seed. The dashed part is extrapolated.",
    ),
    "difference_per_domain": (
        "Difference to the baseline per domain",
        "Blue domains are better than under the baseline, orange ones worse; the interval of a bold number (or a dot) "
        "excludes zero. A row with both colours trades one domain for another, as a constant mixture could.",
    ),
    "mixtures": (
        "Mean mixtures",
        "What the batches of each label were drawn from, in the mean over steps and seeds: as configured for constant "
        "mixtures, as found for the others.",
    ),
    "macro_average_over_tokens": (
        "Macro-average loss over tokens",
        "Lower is better. In the second panel the baseline is the line at zero: a strategy that is below it early and "
        "not at the end is faster and ends no better. Bands are 95 % intervals of the difference.",
    ),
    "weights_by_strategy": (
        "Domain weights over tokens",
        "The height of a band is the share of each batch drawn from that domain, its weight. Bands that stop changing "
        "early are a constant mixture from there on.",
    ),
    "retention_over_tokens": (
        "Retention over tokens",
        "Above zero the model is worse on the retained domains than the base model; a line that peaks and falls has "
        "recovered.",
    ),
    "plan_curves": (
        "Plans on their predicted curves, and what was reached",
        "The blue line is the best mixture at each limit of a guard, by the law of that plan. An empty circle is what "
        "the plan predicts for its own weights, and the dotted line leads to what they reached. All other marks are "
        "reached, too: means over seeds with 95 % intervals of the difference to the baseline of the same seed. A mark "
        "on or near the line could not have been placed better by this law.",
    ),
    "plan_outcomes": (
        "What the plans predicted, and what was reached",
        "Blue: predicted difference to the baseline with its interval. Orange: what each seed reached. Above the line "
        "are averages. Intervals are of expected losses, and a seed adds its own noise.",
    ),
    "added_cost": (
        "Added tokens and time",
        "Tokens and time beyond training itself. All runs are evaluated, even if their strategy does not need it; the "
        "additional cost of a strategy is the difference to the baseline.",
    ),
}


def comparison_figures(comparison: Comparison, plans: Mapping[str, FittedPlan] | None = None) -> list[ReportFigure]:
    """Draw the figures in the order of the page; `plans` are those of planned labels.

    Raises ContractError if the runs cannot be compared.
    """
    summary = summarise(comparison)
    rows, tall = (90 + each * max(len(summary.strategies), 4) for each in (26, 20))
    differences = final.difference_per_domain(summary)
    figures = [
        _figure("frontier_planes", final.frontier_planes(summary), size=(WIDTH, 350)),
        _figure("difference_per_domain", differences, shades=shades_of_differences(summary)),
        _figure(
            "mixtures", mixtures.mixtures_by_strategy(mean_mixtures(summary)), size=(WIDTH, rows), wide=(960, tall)
        ),
        _figure("macro_average_over_tokens", over_tokens.macro_average_over_tokens(summary), size=(WIDTH, 320)),
        _figure("weights_by_strategy", over_tokens.weights_by_strategy(summary), size=(300, 200), layout="small"),
        _figure("retention_over_tokens", over_tokens.retention_over_tokens(summary), wide=(960, max(tall, LINES))),
        _figure("added_cost", final.added_cost(summary), size=(WIDTH, rows)),
    ]
    if outcomes := plan_outcomes(summary, plans or {}):
        rows = 60 + 26 * max(len(each.differences) for each in outcomes)
        figures += [
            _figure("plan_curves", compared_plans.plans_on_their_curves(summary, outcomes), size=(WIDTH, 360)),
            _figure("plan_outcomes", compared_plans.predicted_and_reached(outcomes), size=(WIDTH, rows)),
        ]
    return figures


def _figure(name: str, figure: Figure, **shape: Any) -> ReportFigure:
    return ReportFigure(name, *_CAPTIONS[name], figure, **shape)


def render_comparison(
    comparison: Comparison,
    drawn: list[ReportFigure] | None = None,
    plans: Mapping[str, FittedPlan] | None = None,
    manifest: Manifest | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        drawn: the figures, if the caller has drawn them already.
        plans: of planned labels.
        manifest: with the documents of each domain, for trainers that draw documents.
    """
    summary = summarise(comparison)
    verdicts = [{each and each.verdict for each in strategy.distances.values()} for strategy in summary.contenders]
    gains = {strategy.label for strategy, found in zip(summary.contenders, verdicts, strict=True) if "gain" in found}
    results = result_rows(summary)
    return render_page(
        "comparison.html.jinja",
        comparison_figures(comparison, plans) if drawn is None else drawn,
        answer=comparison_answer(comparison),
        outcome=outcome(summary),
        tiles=_tiles(summary),
        baseline=comparison.baseline,
        frontier=comparison.frontier,
        seeds=summary.seeds,
        retained=retained(comparison),
        learnt=learnt(comparison),
        results=results,
        gains=gains,
        outside=note_of_marks(results),
        costs=cost_rows(summary),
        planned=plan_rows(plans or {}),
        prices=price_rows(summary),
        laws=bool(comparison.target_laws),
        downstream=downstream_rows(summary),
        measured=measured_rows(summary),
        mixtures=mixture_rows(summary),
        blocks={name: mixture_block(weights) for name, weights in mean_mixtures(summary).items()},
        trainers=label_blocks(comparison, summary.strategies, manifest),
        plans=[_plan(summary, each) for each in plan_outcomes(summary, plans or {})],
        by_domain=domain_rows(summary),
        raw=raw_rows(summary),
        meanings={each.heading: each.meaning for each in METRICS.values()},
    )


def _tiles(summary: ComparisonSummary) -> list[Tile]:
    """Return the numbers at the top of the page."""
    first = summary.comparison.runs[0].result
    runs, seeds = len(summary.comparison.runs), len(summary.seeds)
    kept = listed(retained(summary.comparison)) if summary.comparison.retained else "none"
    model = f"{tokens_text(first.parameters)} parameters"
    return [
        Tile("Labels", str(len(summary.strategies)), f"{counted(runs, 'run')} under {counted(seeds, 'seed')}"),
        Tile("Budget of a run", f"{tokens_text(first.tokens)} tokens", f"{first.steps:,} steps, a model of {model}"),
        Tile("Domains", str(len(domains(summary.comparison))), f"to be kept rather than learnt: {kept}"),
        Tile(
            "Time of all runs",
            duration(wall_seconds(summary.comparison)),
            "with what was trained before them, without proxies",
        ),
    ]


def _plan(summary: ComparisonSummary, each: PlanOutcome) -> dict[str, Any]:
    """Return what the page shows of a plan."""
    average = each.fitted.plan.average
    price = line_price(summary, each.label, each.fitted.shares(average))
    return {
        "name": each.name,
        "label": each.label,
        "words": " ".join(
            filter(None, (outcome_in_words(each), best_in_words(summary, each.fitted), price_in_words(price, average)))
        ),
        "short_words": outcome_in_words(each).partition(". ")[0],
        "level": f"{100 * each.fitted.plan.level:.4g} %",
        "objective": objective_rows(summary, each.fitted),
        "outcome": outcome_rows(each),
        "short": each.fitted.short,
    }


def plan_pages(comparison: Comparison, plans: Mapping[str, FittedPlan]) -> dict[str, str]:
    """Return the page of each plan, with the mean mixtures of the other labels on it; the comparison links to them.

    The link of a plan is `plans/<name>.html`. Raises ContractError if the runs cannot be compared.
    """
    mixtures = mean_mixtures(summarise(comparison))
    return {
        label: fitted.page(_others(fitted, {name: each for name, each in mixtures.items() if name != label}))
        for label, fitted in plans.items()
    }


def _others(fitted: FittedPlan, mixtures: Mapping[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the mixtures that the plan does not have itself, under names that it does not use."""
    own = fitted.plan.mixtures

    def known(weights: Mapping[str, float]) -> bool:
        return any(max(abs(each.weights[name] - weights[name]) for name in weights) < SAME for each in own.values())

    return {
        f"{name} (compared)" if name in own else name: weights
        for name, weights in mixtures.items()
        if not known(weights)
    }
