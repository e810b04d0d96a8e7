"""The figure of a planned mixture: weights with their spread, and losses as predicted and as reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from velocitune_core.contracts import Planned
from velocitune_core.style.figure import (
    INK,
    MUTED,
    TEXT_POINTS,
    TITLE_POINTS,
    WIDTH_INCHES,
    domain_colours,
    dress,
    label_rows,
    rows_height,
)
from velocitune_core.style.for_pages import add_values


def plan_and_outcome(
    planned: Planned, initial_domain_weights: Mapping[str, float], reached: Mapping[str, float]
) -> Figure:
    """Draw planned weights beside initial ones, and predicted beside reached losses, with intervals.

    Args:
        initial_domain_weights: w_0 by domain.
        reached: final loss by held-out set, nats per token.
    """
    spread, losses = planned.plan["spread"], planned.plan["mixtures"]["recommended"]["losses"]
    colours = dict.fromkeys(losses, MUTED) | domain_colours(spread)  # as in all figures; sets without text are grey
    rows = max(len(spread), len(losses))
    figure = Figure(figsize=(WIDTH_INCHES, rows_height(rows) + 0.6), layout="constrained", facecolor="white")
    title = "Planned weights, and their outcome"
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    weights, outcome = figure.subplots(1, 2)
    _draw(weights, spread, initial_domain_weights, colours, ("planned", "initial", ""))
    _draw(outcome, losses, reached, colours, ("predicted", "reached", " nats"))
    weights.set_title("dot: planned; diamond: initial", loc="left", fontsize=TEXT_POINTS, color=MUTED)
    weights.set_xlabel("weight", fontsize=TEXT_POINTS, color=INK)
    weights.set_xlim(left=0)
    outcome.set_title("dot: predicted; diamond: reached", loc="left", fontsize=TEXT_POINTS, color=MUTED)
    outcome.set_xlabel("held-out loss, nats per token", fontsize=TEXT_POINTS, color=INK)
    return figure


def _draw(
    axes: Axes,
    intervals: Mapping[str, Mapping[str, Any]],
    beside: Mapping[str, float],
    colours: Mapping[str, str],
    words: tuple[str, str, str],
) -> None:
    """Draw a row per name: a value with its interval, and another value; `words` name both and the unit."""
    dress(axes)
    names = sorted(intervals)
    label_rows(axes, names)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for row, name in enumerate(names):
        found = intervals[name]
        if found["low"] is not None:
            axes.plot([found["low"], found["high"]], [row, row], color=colours[name], linewidth=2.5)
        axes.plot(found["value"], row, marker="o", color=colours[name], markersize=9)
        interval = "" if found["low"] is None else f", {found['low']:.3f} … {found['high']:.3f}"
        text = f"{name}, {words[0]}: {found['value']:.4f}{words[2]}{interval}"
        add_values(axes, [found["value"]], [row], [text], colours[name])
        if name in beside:
            add_values(axes, [beside[name]], [row], [f"{name}, {words[1]}: {beside[name]:.4f}{words[2]}"], INK)
            axes.plot(beside[name], row, marker="D", markerfacecolor="white", markeredgecolor=INK, markersize=7)
