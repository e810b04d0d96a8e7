"""A comparison of strategies as a self-contained HTML page, and its figures."""

from __future__ import annotations

from collections.abc import Mapping

from velocitune_core.comparison.figures import final, over_tokens
from velocitune_core.comparison.metrics import METRICS, learnt, retained
from velocitune_core.comparison.narrative import outcome
from velocitune_core.comparison.statistics import summarise
from velocitune_core.comparison.tables import (
    OUTSIDE,
    cost_rows,
    domain_rows,
    downstream_rows,
    plan_rows,
    raw_rows,
    result_rows,
)
from velocitune_core.contracts import Comparison, StartingWeights
from velocitune_core.report.html import ReportFigure, render_page

_CAPTIONS = {  # figure → title, how to read it
    "frontier_planes": (
        "Against the frontier of constant mixtures",
        "The black line is what constant mixtures (grey, the darker the more even) reach; only a strategy below it has "
        "gained. A filled colour is a gain whose interval excludes zero. The line is drawn through the means, while "
        "verdicts compare each run with the mixtures of its own seed; bars are 95 % intervals of the difference to the "
        "baseline of the same seed. The dashed part is extrapolated.",
    ),
    "difference_per_domain": (
        "Difference to the baseline per domain",
        "Blue domains are better than under the baseline, orange ones worse; the interval of a bold number (or a dot) "
        "excludes zero. A row with both colours trades one domain for another, as a constant mixture could.",
    ),
    "macro_average_over_tokens": (
        "Macro-average loss over tokens",
        "Lower is better. In the lower panel the baseline is the line at zero: a strategy that is below it early and "
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
    "added_cost": (
        "Added tokens and time",
        "Tokens and time beyond training itself. All runs are evaluated, even if their strategy does not need it; the "
        "additional cost of a strategy is the difference to the baseline.",
    ),
}


def comparison_figures(comparison: Comparison) -> list[ReportFigure]:
    """Draw the figures in the order of the page. Raises ContractError if the runs cannot be compared."""
    summary = summarise(comparison)
    drawn = {
        "frontier_planes": final.frontier_planes(summary),
        "difference_per_domain": final.difference_per_domain(summary),
        "macro_average_over_tokens": over_tokens.macro_average_over_tokens(summary),
        "weights_by_strategy": over_tokens.weights_by_strategy(summary),
        "retention_over_tokens": over_tokens.retention_over_tokens(summary),
        "added_cost": final.added_cost(summary),
    }
    return [ReportFigure(name, *_CAPTIONS[name], figure) for name, figure in drawn.items()]


def comparison_outcome(comparison: Comparison) -> str:
    """Return the outcome as a paragraph. Raises ContractError if the runs cannot be compared."""
    return outcome(summarise(comparison))


def render_comparison(
    comparison: Comparison,
    drawn: list[ReportFigure] | None = None,
    plans: Mapping[str, StartingWeights] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        drawn: the figures, if the caller has drawn them already.
        plans: of planned labels, by name: of the label, or of the label and a seed.
    """
    summary = summarise(comparison)
    verdicts = [{each and each.verdict for each in strategy.distances.values()} for strategy in summary.contenders]
    gains = {strategy.label for strategy, found in zip(summary.contenders, verdicts, strict=True) if "gain" in found}
    return render_page(
        "comparison.html.jinja",
        comparison_figures(comparison) if drawn is None else drawn,
        outcome=outcome(summary),
        baseline=comparison.baseline,
        frontier=comparison.frontier,
        seeds=summary.seeds,
        retained=retained(comparison),
        learnt=learnt(comparison),
        results=result_rows(summary),
        gains=gains,
        outside=OUTSIDE if any(OUTSIDE in cell for row in result_rows(summary) for cell in row.values()) else "",
        costs=cost_rows(summary),
        plans=plan_rows(plans or {}),
        downstream=downstream_rows(summary),
        by_domain=domain_rows(summary),
        raw=raw_rows(summary),
        meanings={each.heading: each.meaning for each in METRICS.values()},
    )
