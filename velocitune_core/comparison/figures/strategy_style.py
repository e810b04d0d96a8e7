"""Colours, lines and markers of strategies in the figures of a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from velocitune_core.comparison.statistics import ComparisonSummary
from velocitune_core.style.figure import INK, domain_colours, domain_dashes

NAME_LENGTH = 32  # of a label as it is drawn
_MARKERS = "oD^vPX<>ph*d"
_LIGHTEST, _DARKEST = 0.76, 0.30  # greys of the least and the most even mixture


class StrategyStyle(NamedTuple):
    """The style of one label."""

    colour: str
    dashes: str
    marker: str
    constant: bool


def strategy_styles(summary: ComparisonSummary) -> dict[str, StrategyStyle]:
    """Return a style per label; the baseline is black and dashed unless it is in the frontier."""
    contenders = [each.label for each in summary.contenders]
    colours, dashes = domain_colours(contenders), domain_dashes(contenders)
    styles = {summary.baseline.label: StrategyStyle(INK, "--", "s", True)}
    constant = [each.label for each in summary.constant]
    for rank, label in enumerate(constant):
        grey = _LIGHTEST - (_LIGHTEST - _DARKEST) * rank / max(len(constant) - 1, 1)
        styles[label] = StrategyStyle("#" + f"{round(grey * 255):02x}" * 3, "-", "s", True)
    for rank, label in enumerate(contenders):
        styles[label] = StrategyStyle(colours[label], dashes[label], _MARKERS[rank % len(_MARKERS)], False)
    return styles


def legend_columns(names: Iterable[str]) -> int:
    """Return how many entries of a legend stand beside each other in a figure's width: at most four."""
    longest = max((min(len(name), NAME_LENGTH) for name in names), default=1)
    return max(1, min(4, 108 // (longest + 4)))
