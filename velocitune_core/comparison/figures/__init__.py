"""Pure functions from a summarised comparison to matplotlib figures, one per question.

Apart from `figures`, so that the stage report, which draws those, is not out of date when a comparison is drawn anew.
A strategy has the same colour and mark in every figure; constant mixtures are grey, the darker the more even.
"""

from velocitune_core.comparison.figures.final import added_cost, difference_per_domain, frontier_planes
from velocitune_core.comparison.figures.over_tokens import (
    macro_average_over_tokens,
    retention_over_tokens,
    weights_by_strategy,
)
from velocitune_core.comparison.figures.style import strategy_styles

__all__ = [
    "added_cost",
    "difference_per_domain",
    "frontier_planes",
    "macro_average_over_tokens",
    "retention_over_tokens",
    "strategy_styles",
    "weights_by_strategy",
]
