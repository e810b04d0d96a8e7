"""Figures of the plans of a comparison: on their predicted curves as reached, and predicted beside reached."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from velocitune_core.comparison.figures.strategy_style import (
    NAME_LENGTH,
    StrategyStyle,
    legend_columns,
    strategy_styles,
)
from velocitune_core.comparison.metrics import runs_of
from velocitune_core.comparison.statistics import ComparisonSummary, estimate
from velocitune_core.contracts import ComparedRun
from velocitune_core.mixture_law.named_guard import NamedGuard
from velocitune_core.report.compared_plans import PlanOutcome, losses_of
from velocitune_core.report.figures.plan_law import (
    PLAN_COLOUR,
    REACHED_COLOUR,
    draw_curve,
    label_plane,
    plane_text,
)
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.style.figure import (
    INK,
    MUTED,
    SMALL_POINTS,
    TITLE_POINTS,
    WIDTH_INCHES,
    dress,
    label,
    notice,
)
from velocitune_core.style.for_pages import add_values
from velocitune_core.style.text import signed

PLANS_AT_MOST = 6


def plans_on_their_curves(summary: ComparisonSummary, outcomes: Sequence[PlanOutcome]) -> Figure:
    """Draw, for each planned label, the curve of its law, where every label ended, and where it was predicted to."""
    title = "Plans on their predicted curves, and what was reached"
    curved = [each for each in outcomes if _guard(each.fitted) is not None]
    drawn = curved[:PLANS_AT_MOST]
    if not drawn:
        return notice(title, "No plan of this comparison has a guard that a curve can be drawn for.")
    columns = min(len(drawn), 2)
    rows = -(-len(drawn) // columns)
    styles = strategy_styles(summary)
    height = 0.9 + 4.6 * rows + 0.3 * -(-(len(styles) + 2) // legend_columns(styles))
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained", facecolor="white")
    figure.suptitle(_of_these(title, curved), x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[len(drawn) :]:
        axes.remove()
    for axes, outcome in zip(grid, drawn, strict=False):
        dress(axes, SMALL_POINTS)
        _plane(axes, summary, outcome, styles)
    key = [Line2D([], [], color=PLAN_COLOUR, linewidth=2.2, label="best by the law")]
    key.append(Line2D([], [], marker="o", markersize=9, color="white", markeredgecolor=PLAN_COLOUR))
    key[-1].set(linestyle="none", label="the plan, predicted")
    for name, style in styles.items():
        key.append(Line2D([], [], color=style.colour, marker=style.marker, markersize=8, linestyle="none"))
        key[-1].set_label(label(name, NAME_LENGTH))
    figure.legend(
        handles=key, loc="outside lower left", ncols=legend_columns(styles), fontsize=SMALL_POINTS, frameon=False
    )
    return figure


def _guard(fitted: FittedPlan) -> str | None:
    """Return the first guard with a curve in whose plane whole runs may be drawn; None if there is none.

    Differences to the baseline of the same seed may always be; forgetting of a set without a target may not, as its
    predicted loss is not at the level of a whole run.
    """
    for name, points in fitted.curves.items():
        of_levels = NamedGuard.of(name).kind == "forgetting"
        if points and not (of_levels and set(fitted.short) & fitted.sets_of(name)):
            return name
    return None


def _of_these(title: str, outcomes: Sequence[PlanOutcome]) -> str:
    """Return a title that says how many plans are left out, if some are."""
    return title if len(outcomes) <= PLANS_AT_MOST else f"{title}: {PLANS_AT_MOST} of {len(outcomes)} plans"


def _plane(axes: Axes, summary: ComparisonSummary, outcome: PlanOutcome, styles: dict[str, StrategyStyle]) -> None:
    """Draw one plan's curve with the mean of every label over the seeds; bars are intervals of paired differences."""
    fitted = outcome.fitted
    guard = _guard(fitted)
    assert guard is not None
    draw_curve(axes, fitted, guard)
    mixtures = {name: fitted.plan.mixtures[name].losses for name in ("recommended", fitted.plan.baseline)}
    predicted = {name: {each: one.value for each, one in losses.items()} for name, losses in mixtures.items()}
    planned = fitted.place(guard, predicted["recommended"], predicted[fitted.plan.baseline])
    axes.plot(*planned, marker="o", markersize=11, color="white", markeredgecolor=PLAN_COLOUR, zorder=3)
    add_values(axes, [planned[0]], [planned[1]], [plane_text("the plan, predicted", planned)], PLAN_COLOUR)
    baseline = runs_of(summary.comparison, summary.baseline.label)
    for name, style in styles.items():
        pairs = [
            fitted.place(guard, _sets(fitted.law.sets, run), _sets(fitted.law.sets, baseline[seed]))
            for seed, run in runs_of(summary.comparison, name).items()
            if seed in baseline
        ]
        x, y = (estimate(each) for each in zip(*pairs, strict=True)) if pairs else (None, None)
        if x is None or y is None:
            continue
        own = name == outcome.label
        add_values(axes, [x.mean], [y.mean], [plane_text(name, (x.mean, y.mean))], style.colour)
        axes.errorbar(
            x.mean,
            y.mean,
            xerr=x.half_width,
            yerr=y.half_width,
            color=style.colour,
            marker=style.marker,
            markersize=10 if own else 7,
            elinewidth=1.1,
            zorder=5 if own else 4,
        )
        if own:
            axes.plot([planned[0], x.mean], [planned[1], y.mean], color=style.colour, linestyle=":", linewidth=1.5)
    label_plane(axes, guard, fitted.plan.average, summary.baseline.label, every=True)
    axes.set_title(label(outcome.name, 40), loc="left", fontsize=SMALL_POINTS, fontweight="bold", color=INK)


def _sets(names: Sequence[str], run: ComparedRun) -> dict[str, float]:
    losses = losses_of(run)
    return {name: losses[name] for name in names}


def predicted_and_reached(outcomes: Sequence[PlanOutcome]) -> Figure:
    """Draw, for each planned label, predicted differences to the baseline with intervals, and those of every seed."""
    drawn = list(outcomes)[:PLANS_AT_MOST]
    columns = min(len(drawn), 2)
    rows = -(-len(drawn) // columns)
    height = 1.2 + rows * (1.1 + 0.34 * max(len(each.differences) for each in drawn))
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained", facecolor="white")
    title = _of_these("What the plans predicted, and what was reached", outcomes)
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[len(drawn) :]:
        axes.remove()
    for axes, outcome in zip(grid, drawn, strict=False):
        _differences(axes, outcome)
    figure.supxlabel("difference to the baseline, nats per token", fontsize=SMALL_POINTS, color=INK)
    return figure


def _differences(axes: Axes, outcome: PlanOutcome) -> None:
    dress(axes, SMALL_POINTS)
    averages = len(outcome.differences) - len(outcome.fitted.law.sets)
    for row, each in enumerate(outcome.differences):
        if each.predicted.low is not None and each.predicted.high is not None:
            axes.plot([each.predicted.low, each.predicted.high], [row, row], color=PLAN_COLOUR, linewidth=2.5)
        axes.plot(each.predicted.value, row, "o", color=PLAN_COLOUR, markersize=7)
        reached = list(each.reached.values())
        axes.plot(reached, [row] * len(reached), "D", color=REACHED_COLOUR, markersize=5, markeredgecolor="white")
        predicted = f"{each.name}, predicted: {signed(each.predicted.value, 4)} nats"
        add_values(axes, [each.predicted.value], [row], [predicted], PLAN_COLOUR)
        texts = [f"{each.name}, seed {seed}: {signed(value, 4)} nats" for seed, value in each.reached.items()]
        add_values(axes, reached, [row] * len(reached), texts, REACHED_COLOUR)
    names = [f"average: {each.name}" if row < averages else each.name for row, each in enumerate(outcome.differences)]
    axes.set_yticks(range(len(names)), [label(name, 24) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=INK, linewidth=1)
    axes.axhline(averages - 0.5, color=MUTED, linewidth=0.8)
    axes.set_title(label(outcome.name, 40), loc="left", fontsize=SMALL_POINTS, fontweight="bold", color=INK)
