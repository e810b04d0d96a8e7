"""Figures of final results: against the frontier, per domain, and added cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from velocitune_core.comparison.figures.strategy_style import (
    NAME_LENGTH,
    StrategyStyle,
    legend_columns,
    strategy_styles,
)
from velocitune_core.comparison.frontier import Frontier
from velocitune_core.comparison.metrics import domains, metric, proxy_cost, runs_of
from velocitune_core.comparison.statistics import PLANES, ComparisonSummary, Estimate, Plane, StrategySummary
from velocitune_core.contracts import ComparedRun
from velocitune_core.style.figure import (
    INK,
    MUTED,
    SMALL_POINTS,
    TEXT_POINTS,
    TITLE_POINTS,
    WIDTH_INCHES,
    dress,
    label,
    label_rows,
    notice,
    rows_height,
)
from velocitune_core.style.for_pages import add_values
from velocitune_core.style.text import percent, signed

NUMBERS_AT_MOST = 10  # domains whose differences are also written as numbers
_COST_PARTS = ("proxies", "search", "evaluation", "reweighting")
_COST_COLOURS = ("#E69F00", "#CC79A7", "#56B4E9", "#0072B2")


def frontier_planes(summary: ComparisonSummary) -> Figure:
    """Draw the means over seeds in both planes, and the frontier of the constant mixtures' means.

    The bars are 95 % intervals of the difference to the baseline of the same seed: an effect of the seed on all
    strategies moves the frontier, too.
    """
    title = "Against the frontier of constant mixtures"
    shown = [plane for plane in PLANES if any(_place(each, plane) for each in summary.strategies.values())]
    if not shown:
        return notice(title, "No plane has both of its metrics.")
    styles = strategy_styles(summary)
    key_rows = -(-len(summary.strategies) // legend_columns(styles))
    height = 5.6 + 0.3 * key_rows
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    for axes, plane in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        dress(axes, SMALL_POINTS)
        for strategy in summary.strategies.values():
            _point(axes, strategy, plane, styles[strategy.label])
        _frontier(axes, summary, plane)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(f"{metric(plane.x).heading}, nats per token", fontsize=TEXT_POINTS, color=INK)
        axes.set_ylabel(f"{metric(plane.y).heading}, nats per token", fontsize=TEXT_POINTS, color=INK)
    figure.axes[0].set_title("better: down and left", loc="left", fontsize=TEXT_POINTS, color=MUTED)
    figure.axes[-1].set_title("filled colour: a gain", loc="right", fontsize=TEXT_POINTS, color=MUTED)
    key = [
        Line2D(
            [],
            [],
            color=style.colour,
            marker=style.marker,
            markersize=8,
            linestyle="none",
            label=label(name, NAME_LENGTH),
        )
        for name, style in styles.items()
    ]
    figure.legend(
        handles=key, loc="outside lower left", ncols=legend_columns(styles), fontsize=SMALL_POINTS, frameon=False
    )
    return figure


def _place(strategy: StrategySummary, plane: Plane) -> tuple[Estimate, Estimate] | None:
    x, y = strategy.metrics.get(plane.x), strategy.metrics.get(plane.y)
    return None if x is None or y is None else (x, y)


def _point(axes: Axes, strategy: StrategySummary, plane: Plane, style: StrategyStyle) -> None:
    """Draw a strategy; the marker is filled for a gain over the frontier and for constant mixtures."""
    place, distance = _place(strategy, plane), strategy.distances[plane.name]
    if place is None:
        return
    filled = style.constant or (distance is not None and distance.verdict == "gain")
    x, y = place
    x_bar, y_bar = strategy.differences[plane.x], strategy.differences[plane.y]
    axes.errorbar(
        x.mean,
        y.mean,
        xerr=x_bar.half_width if x_bar else None,
        yerr=y_bar.half_width if y_bar else None,
        color=style.colour,
        marker=style.marker,
        markersize=7 if style.constant else 9,
        markerfacecolor=style.colour if filled else "white",
        markeredgewidth=1.8,
        elinewidth=1.1,
        zorder=3 if style.constant else 4,
    )
    spread = [f" ± {each.half_width:.4f}" if each and each.half_width else "" for each in (x_bar, y_bar)]
    verdict = f", {distance.verdict}" if distance is not None and distance.verdict else ""
    parts = [
        f"{metric(name).heading} {at.mean:.4f}{bar}" for name, at, bar in zip(plane[1:], place, spread, strict=True)
    ]
    add_values(axes, [x.mean], [y.mean], [f"{strategy.label}: {', '.join(parts)} nats{verdict}"], style.colour)


def _frontier(axes: Axes, summary: ComparisonSummary, plane: Plane) -> None:
    """Draw the frontier of the means, dashed where it is extrapolated."""
    found = [place for each in summary.constant if (place := _place(each, plane))]
    if not found:
        return
    frontier = Frontier.through((x.mean, y.mean) for x, y in found)
    axes.margins(0.08)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.plot(frontier.x, frontier.y, color=INK, linewidth=1.8, zorder=2)
    for start, end in ((left, frontier.x[0]), (frontier.x[-1], right)):
        ends = np.array([start, end])
        axes.plot(ends, [frontier.height(x) for x in ends], color=INK, linewidth=1.3, linestyle=(0, (4, 3)), zorder=2)
    axes.set(xlim=(left, right), ylim=(bottom, top))


def difference_per_domain(summary: ComparisonSummary) -> Figure:
    """Draw final loss minus the baseline's per domain, mean over pairs; bold if the interval excludes zero."""
    title = "Difference to the baseline per domain"
    others = [each for each in summary.strategies.values() if each is not summary.baseline]
    if not others:
        return notice(title, "There is no strategy but the baseline.")
    names = domains(summary.comparison)
    grid = [[each.loss_differences[name] for name in names] for each in others]
    means = np.array([[np.nan if cell is None else cell.mean for cell in row] for row in grid])  # (strategies, K)
    largest = float(np.nanmax(np.abs(means), initial=0.0)) or 1.0
    figure = Figure(figsize=(WIDTH_INCHES, rows_height(len(others)) + 0.9), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("less-more", ["#0072B2", "#ffffff", "#D55E00"])
    image = axes.imshow(means, cmap=colours, norm=TwoSlopeNorm(0, -largest, largest), aspect="auto")
    dress(axes, SMALL_POINTS)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_yticks(range(len(others)), [label(each.label, NAME_LENGTH) for each in others])
    slanted = len(names) > 7
    axes.set_xticks(
        range(len(names)),
        [label(name, 16) for name in names],
        rotation=40 * slanted,
        ha="right" if slanted else "center",
    )
    axes.hlines(np.arange(1, len(others)) - 0.5, -0.5, len(names) - 0.5, color="white", linewidth=2)
    for row, cells in enumerate(grid):
        for column, cell in enumerate(cells):
            _difference(axes, column, row, cell, largest, len(names) <= NUMBERS_AT_MOST)
    scale = figure.colorbar(image, ax=axes, pad=0.02, aspect=30)
    scale.set_label("nats per token; blue: better", fontsize=SMALL_POINTS, color=INK)
    scale.ax.tick_params(labelsize=SMALL_POINTS, colors=INK, length=0)
    scale.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _difference(axes: Axes, column: int, row: int, cell: Estimate | None, largest: float, written: bool) -> None:
    """Write a number, bold if its interval excludes zero; only a dot then if `written` is False."""
    clear = cell is not None and bool(cell.sign)
    text = "–" if cell is None else signed(cell.mean, 3) if written else "•" if clear else ""
    dark = cell is not None and abs(cell.mean) > 0.75 * largest
    axes.text(
        column,
        row,
        text,
        ha="center",
        va="center",
        fontsize=SMALL_POINTS,
        fontweight="bold" if clear else "normal",
        color="white" if dark else INK,
    )


def added_cost(summary: ComparisonSummary) -> Figure:
    """Draw the tokens and time that a strategy adds to a run, mean over seeds, by kind of work."""
    rows = list(summary.strategies.values())
    height = rows_height(len(rows)) + 0.7
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained", facecolor="white")
    figure.suptitle("Added tokens and time", x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    tokens, seconds = figure.subplots(1, 2, sharey=True)
    for axes, unit in ((tokens, "tokens"), (seconds, "seconds")):
        dress(axes)
        for row, strategy in enumerate(rows):
            runs = runs_of(summary.comparison, strategy.label).values()
            parts = np.mean([_added(summary, run, unit) for run in runs], axis=0)  # (parts,)
            lefts = np.cumsum(parts) - parts
            axes.barh([row] * len(parts), parts, left=lefts, height=0.6, color=_COST_COLOURS)
            total = float(parts.sum())
            text = "unknown" if np.isnan(total) else percent(total)
            if not np.isnan(total):
                each = [f"{part} {percent(share)}" for part, share in zip(_COST_PARTS, parts, strict=True) if share]
                add_values(axes, [total], [row], [f"{strategy.label}: {text} ({', '.join(each) or 'nothing'})"], INK)
            axes.annotate(
                text,
                (0 if np.isnan(total) else total, row),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=SMALL_POINTS,
                color=INK,
            )
        axes.margins(x=0.25)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    label_rows(tokens, [each.label for each in rows])
    tokens.set_yticks(range(len(rows)), [label(each.label, NAME_LENGTH) for each in rows])
    seconds.grid(axis="y", visible=False)
    tokens.set_xlabel("of the run's tokens", fontsize=TEXT_POINTS, color=INK)
    seconds.set_xlabel("of the run's time without evaluation", fontsize=TEXT_POINTS, color=INK)
    key = [
        Line2D([], [], marker="s", markersize=10, color=colour, linestyle="none", label=part)
        for part, colour in zip(_COST_PARTS, _COST_COLOURS, strict=True)
    ]
    figure.legend(handles=key, loc="outside upper right", ncols=4, fontsize=SMALL_POINTS, frameon=False)
    return figure


def _added(summary: ComparisonSummary, run: ComparedRun, unit: str) -> Sequence[float]:
    """Return shares of the run's own cost in the order of _COST_PARTS; they sum to added_tokens or added_seconds."""
    proxies, result, spent = proxy_cost(summary.comparison, run), run.result, run.result.seconds
    if unit == "tokens":
        parts, own = (proxies[0], run.search_tokens, 0, 0), float(result.tokens)
    else:
        parts = (proxies[1], run.search_seconds, spent.evaluation, spent.reweighting)
        own = spent.total - spent.evaluation - spent.reweighting
    return [part / own if own > 0 else float("nan") for part in parts]
