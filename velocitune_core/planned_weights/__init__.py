"""Domain weights planned from a swarm of short runs: law of the losses, optimum of an objective, what it is worth."""

from velocitune_core.planned_weights.course import steering_of
from velocitune_core.planned_weights.decision import Decision, decide_round
from velocitune_core.planned_weights.plan import plan_weights, rounded
from velocitune_core.planned_weights.static_levels import level_problems, levels_in_words
from velocitune_core.planned_weights.swarm_law import full_law, largest_law
from velocitune_core.planned_weights.worth import worth_of

__all__ = [
    "Decision",
    "decide_round",
    "full_law",
    "largest_law",
    "level_problems",
    "levels_in_words",
    "plan_weights",
    "rounded",
    "steering_of",
    "worth_of",
]
