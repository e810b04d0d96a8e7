"""The style that all figures share: colours, font sizes, panels, and labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from velocitune_core.style.for_pages import HEADING, SIDE_LABEL, SUBTITLE, SideLabel, add_side_labels
from velocitune_core.style.text import tick_text

WIDTH_INCHES = 10.0
TITLE_POINTS = 17
TEXT_POINTS = 13
SMALL_POINTS = 11
INK = "#222222"
MUTED = "#6b6b6b"
OTHERS = "#b8b8b8"
WARNING = "#b3261e"
CAUTION = "#8a5a00"  # of what should be known, and is nothing wrong
LINES_AT_MOST = 12  # more lines in one panel cannot be distinguished

# Okabe and Ito's set without yellow (poor contrast on white) and black (used for text), then Tol's muted set.
_PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288", "#999933"),
    *("#882255", "#44AA99", "#DDCC77", "#117733", "#AA4499", "#88CCEE", "#7F7F7F"),
)


def domain_colours(domains: Iterable[str]) -> dict[str, str]:
    """Return a colour per domain by the order of names; the palette repeats after 15. A name may be given twice."""
    return {name: _PALETTE[index % len(_PALETTE)] for index, name in enumerate(sorted(set(domains)))}


def domain_dashes(domains: Iterable[str]) -> dict[str, str]:
    """Return a line style per domain, which changes each time the palette repeats."""
    styles = ("-", "--", ":", "-.")
    return {name: styles[index // len(_PALETTE) % len(styles)] for index, name in enumerate(sorted(set(domains)))}


def label(domain: str, at_most: int = 20) -> str:
    """Return a name as drawn: shortened to `at_most` characters, with dollar signs escaped from mathematics."""
    text = domain if len(domain) <= at_most else domain[: at_most - 1] + "…"
    return text.replace("$", r"\$")


def new_figure(height: float, title: str, subtitle: str = "") -> tuple[Figure, Axes]:
    """Return a figure of one panel, `height` inches high, with a title and a grey subtitle."""
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    pad = 34 if subtitle else 12
    axes.set_title(title, loc="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK, pad=pad).set_gid(HEADING)
    if subtitle:
        axes.annotate(
            subtitle,
            (0, 1),
            (0, 9),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=TEXT_POINTS,
            color=MUTED,
            va="bottom",
        ).set_gid(SUBTITLE)
    dress(axes)
    return figure, axes


def panels(count: int, title: str, subtitle: str, *, unit_x: str, unit_y: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` small panels in a grid under one title; they share x and not y."""
    columns = 1 if count == 1 else 2 if count <= 4 else 3 if count <= 9 else 4
    rows = math.ceil(count / columns)
    height = 4.4 if rows == 1 else 2.45 * rows
    figure = Figure(figsize=(WIDTH_INCHES, height + 1.3), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr]
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    top = 1 - 0.47 / (height + 1.3)
    figure.text(0.01, top, subtitle, fontsize=TEXT_POINTS, color=MUTED, va="top", in_layout=False).set_gid(SUBTITLE)
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for index, axes in enumerate(grid):
        if index >= count:
            axes.remove()
            continue
        dress(axes, SMALL_POINTS)
        axes.xaxis.set_major_locator(MaxNLocator(4 if columns < 4 else 2))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_tick_params(labelbottom=index + columns >= count)
    figure.supxlabel(unit_x, x=0.08, ha="left", fontsize=TEXT_POINTS, color=INK)  # the legend is on the right
    figure.supylabel(unit_y, fontsize=TEXT_POINTS, color=INK)
    return figure, grid[:count]


def panel_title(axes: Axes, domain: str, text: str) -> None:
    """Title a panel with a domain's name and a number."""
    axes.set_title(f"{label(domain, 16)}  {text}", loc="left", fontsize=SMALL_POINTS, color=INK)


def dress(axes: Axes, points: int = TEXT_POINTS) -> None:
    """Apply a light grid, no box and readable ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9a9a9a")
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=points, colors=INK, length=0, pad=5)


def token_axis(axes: Axes, *, text: str = "", points: int = TEXT_POINTS) -> None:
    """Format the x axis as tokens, with `text` as its label."""
    axes.xaxis.set_major_formatter(FuncFormatter(tick_text))
    if text:
        axes.set_xlabel(text, fontsize=points, color=INK)


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows of a bar chart, the first at the top."""
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def rows_height(count: int) -> float:
    """Return the height in inches of a chart of `count` horizontal bars."""
    return 1.9 + 0.44 * max(count, 2)


def notice(title: str, text: str) -> Figure:
    """Return a figure of text that states why there is nothing to draw."""
    figure, axes = new_figure(1.5, title)
    axes.set_axis_off()
    axes.text(0.0, 0.7, text, fontsize=TEXT_POINTS, color=INK, transform=axes.transAxes, va="center")
    return figure


def largest(shares: Mapping[str, float], at_most: int = LINES_AT_MOST) -> list[str]:
    """Return the names to draw individually, in name order: all, or the largest `at_most` - 1 if there are more."""
    if len(shares) <= at_most:
        return sorted(shares)
    return sorted(sorted(shares, key=lambda name: (-shares[name], name))[: at_most - 1])


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions at least `gap` apart within [low, high], in their order; less where there is no room."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    moved = [min(max(positions[index], low), high) for index in order]
    gap = min(gap, (high - low) / max(len(moved) - 1, 1))
    for here, following in pairwise(range(len(moved))):
        moved[following] = max(moved[following], moved[here] + gap)
    if moved and moved[-1] > high:
        moved[-1] = high
        for here in range(len(moved) - 2, -1, -1):
            moved[here] = min(moved[here], moved[here + 1] - gap)
    result = [0.0] * len(moved)
    for index, position in zip(order, moved, strict=True):
        result[index] = position
    return result


def label_right(axes: Axes, labels: Sequence[tuple[float, str, str]], *, gap: float) -> None:
    """Write labels (y, text, colour) beside the right edge, moved apart, each joined to its y by a thin line.

    `gap` is in data units of y; the limits of both axes must be final.
    """
    low, high = axes.get_ylim()
    heights = spread([y for y, _, _ in labels], gap, low + gap / 2, high - gap / 2)
    for (y, text, colour), height in zip(labels, heights, strict=True):
        position = axes.get_yaxis_transform()
        drawn = axes.plot([1.0, 1.025], [y, height], color=colour, linewidth=1.5, clip_on=False, transform=position)
        drawn += axes.plot(
            [1.025, 1.04], [height, height], color=colour, linewidth=5, clip_on=False, transform=position
        )
        written = axes.text(1.05, height, text, fontsize=TEXT_POINTS, color=INK, va="center", transform=position)
        for each in (*drawn, written):
            each.set_gid(SIDE_LABEL)
    downwards = sorted(zip(heights, labels, strict=True), key=lambda pair: -pair[0])
    add_side_labels(axes, [SideLabel(text, colour) for _, (_, text, colour) in downwards])


@contextmanager
def laid_out(figure: Figure, canvas: type[FigureCanvasBase], dots_per_inch: float) -> Iterator[None]:
    """Lay a figure out on a canvas for what is saved in the block, and leave it as it was.

    `savefig` alone would draw the whole figure once to lay it out, and then again.
    """
    engine, before, dots = figure.get_layout_engine(), figure.canvas, figure.dpi
    if engine is None:
        yield
        return
    try:
        canvas(figure)
        figure.dpi = dots_per_inch
        engine.execute(figure)
        figure.set_layout_engine(None)  # "none" would leave one that does nothing, and the second drawing
        yield
    finally:
        figure.set_layout_engine(engine)
        figure.set_canvas(before)
        figure.dpi = dots
