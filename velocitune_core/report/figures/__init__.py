"""Pure functions from results to matplotlib figures: no pyplot, no global state.

A domain has the same colour in every figure: colours follow the order of names. Tokens and losses carry their units;
every function takes the contracts that the stages write and returns a `Figure` that the caller saves.
"""

from velocitune_core.report.figures.cost import CostRow, cost, cost_rows, tokens_and_epochs
from velocitune_core.report.figures.style import domain_colours, tokens_text
from velocitune_core.report.figures.targets import laws, predicted_against_reached
from velocitune_core.report.figures.training import loss_per_domain, velocity_per_domain, weights_over_time

__all__ = [
    "CostRow",
    "cost",
    "cost_rows",
    "domain_colours",
    "laws",
    "loss_per_domain",
    "predicted_against_reached",
    "tokens_and_epochs",
    "tokens_text",
    "velocity_per_domain",
    "weights_over_time",
]
