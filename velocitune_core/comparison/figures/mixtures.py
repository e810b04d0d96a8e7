"""The mixtures of a comparison: what the batches of each label were drawn from, in the mean over steps and seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from velocitune_core.comparison.figures.strategy_style import NAME_LENGTH, legend_columns
from velocitune_core.style.figure import (
    INK,
    OTHERS,
    SMALL_POINTS,
    TITLE_POINTS,
    WIDTH_INCHES,
    domain_colours,
    dress,
    label,
    label_rows,
    largest,
    rows_height,
)
from velocitune_core.style.for_pages import add_values
from velocitune_core.style.text import counted, percent


def mixtures_by_strategy(mixtures: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the mean mixture of each label as a bar of domains; the smallest beyond twelve are one part.

    Args:
        mixtures: mean domain weights by label, of the same domains.
    """
    names = sorted(next(iter(mixtures.values())))
    shown = largest({name: max(weights[name] for weights in mixtures.values()) for name in names})
    folded = [name for name in names if name not in shown]
    figure = Figure(figsize=(WIDTH_INCHES, rows_height(len(mixtures)) + 0.9), layout="constrained", facecolor="white")
    figure.suptitle("Mean mixtures", x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    axes, colours = figure.subplots(), domain_colours(names)
    dress(axes, SMALL_POINTS)
    for row, (strategy, weights) in enumerate(mixtures.items()):
        shares = [weights[name] for name in shown] + ([sum(weights[name] for name in folded)] if folded else [])
        lefts, fills = np.cumsum(shares) - shares, [colours[name] for name in shown] + [OTHERS] * bool(folded)
        axes.barh([row] * len(shares), shares, left=lefts, height=0.66, color=fills, edgecolor="white", linewidth=0.8)
        for name, share, left, fill in zip([*shown, "others"], shares, lefts, fills, strict=False):
            add_values(axes, [left + share / 2], [row], [f"{strategy}: {name} {percent(share)}"], fill)
    label_rows(axes, list(mixtures))
    axes.set_yticks(range(len(mixtures)), [label(name, NAME_LENGTH) for name in mixtures])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    key = [Patch(color=colours[name], label=label(name, 16)) for name in shown]
    key += [Patch(color=OTHERS, label=counted(len(folded), "other"))] if folded else []
    columns = max(4, legend_columns(shown))
    figure.legend(handles=key, loc="outside lower left", ncols=columns, fontsize=SMALL_POINTS, frameon=False)
    return figure
