"""A comparison as one self-contained HTML page; its numbers, figures and metrics for whoever else shows them."""

from __future__ import annotations

from velocitune_core.comparison import figures as plots
from velocitune_core.comparison.metrics import METRICS, learnt, retained
from velocitune_core.comparison.narrative import answer
from velocitune_core.comparison.statistics import summarise
from velocitune_core.comparison.tables import (
    OUTSIDE,
    comparison_markdown,
    comparison_metrics,
    cost_rows,
    domain_rows,
    downstream_rows,
    formatted_comparison,
    raw_rows,
    result_rows,
)
from velocitune_core.contracts import Comparison
from velocitune_core.report.html import ReportFigure, render_page, save_png

__all__ = [
    "ReportFigure",
    "comparison_answer",
    "comparison_figures",
    "comparison_markdown",
    "comparison_metrics",
    "formatted_comparison",
    "render_comparison",
    "save_png",
]

_CAPTIONS = {  # figure → its title, and how to read it
    "frontier_planes": (
        "Against the frontier of constant mixtures",
        "Choosing a constant mixture (grey, the darker the more even) moves along the black line for free; only what "
        "lies below it is a gain. A filled colour is a gain with an interval clear of zero. The line runs through the "
        "means, while the verdicts compare each run with the mixtures of its own seed; the bars are 95 % intervals of "
        "the difference to the baseline of the same seed. Where the line is dashed no mixture was trained.",
    ),
    "difference_per_domain": (
        "Difference to the baseline per domain",
        "Blue domains gain on the baseline and orange ones pay for it; a bold number (or a dot) has an interval clear "
        "of zero. A row with both colours moves tokens from one domain to another, as a constant mixture could.",
    ),
    "macro_average_over_tokens": (
        "Macro-average loss over tokens",
        "Lower is better. Below, the baseline is the line at zero: a strategy that only dips early is faster and ends "
        "no better. Bands are 95 % intervals of the difference.",
    ),
    "weights_by_strategy": (
        "Domain weights over tokens",
        "The height of a band is the share of each batch drawn from that domain; bands that stop changing early are a "
        "constant mixture found late.",
    ),
    "retention_over_tokens": (
        "Retention over tokens",
        "A line above zero is a model that is worse on the retained domains than the base model was; a line that peaks "
        "and comes down has recovered.",
    ),
    "added_cost": (
        "Added tokens and time",
        "What comes on top of training itself. Every run here evaluates, also one whose strategy has no need of it; "
        "what a strategy costs beyond that is the difference to the baseline.",
    ),
}


def comparison_figures(comparison: Comparison) -> list[ReportFigure]:
    """The figures in the order of the page. Raises ContractError where the runs cannot be compared."""
    summary = summarise(comparison)
    drawn = {
        "frontier_planes": plots.frontier_planes(summary),
        "difference_per_domain": plots.difference_per_domain(summary),
        "macro_average_over_tokens": plots.macro_average_over_tokens(summary),
        "weights_by_strategy": plots.weights_by_strategy(summary),
        "retention_over_tokens": plots.retention_over_tokens(summary),
        "added_cost": plots.added_cost(summary),
    }
    return [ReportFigure(name, *_CAPTIONS[name], figure) for name, figure in drawn.items()]


def comparison_answer(comparison: Comparison) -> str:
    """The outcome in a paragraph of plain words."""
    return answer(summarise(comparison))


def render_comparison(comparison: Comparison, drawn: list[ReportFigure] | None = None) -> str:
    """The page as HTML text; `drawn` spares drawing figures that the caller already has."""
    summary = summarise(comparison)
    verdicts = [{each and each.verdict for each in strategy.distances.values()} for strategy in summary.contenders]
    gains = {strategy.label for strategy, found in zip(summary.contenders, verdicts, strict=True) if "gain" in found}
    return render_page(
        "comparison.html.jinja",
        comparison_figures(comparison) if drawn is None else drawn,
        answer=answer(summary),
        baseline=comparison.baseline,
        frontier=comparison.frontier,
        seeds=summary.seeds,
        retained=retained(comparison),
        learnt=learnt(comparison),
        results=result_rows(summary),
        gains=gains,
        outside=OUTSIDE if any(OUTSIDE in cell for row in result_rows(summary) for cell in row.values()) else "",
        costs=cost_rows(summary),
        downstream=downstream_rows(summary),
        by_domain=domain_rows(summary),
        raw=raw_rows(summary),
        meanings={each.heading: each.meaning for each in METRICS.values()},
    )
