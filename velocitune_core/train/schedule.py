"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math

from velocitune_core.config import Schedule


def learning_rate_factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """Return the learning rate of a 0-based step as a fraction of its peak.

    Linear warm-up from 1 / (warm-up steps) to 1. Then either half a cosine down to `final_fraction`, or, in a
    warm-up-stable-decay schedule (WSD; Hu et al., 2024), constant and linear down to it over the last `decay_fraction`
    of all steps.
    """
    assert 0 <= step < total_steps, f"step {step} of {total_steps}"
    warmup = warmup_steps(schedule, total_steps)
    if step < warmup:
        return (step + 1) / warmup
    floor = schedule.final_fraction
    if schedule.kind == "wsd":
        start = decay_start(schedule, total_steps)
        progress = max(0, step + 1 - start) / (total_steps - start)
        return 1 - (1 - floor) * progress
    progress = (step + 1 - warmup) / max(1, total_steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_steps(schedule: Schedule, total_steps: int) -> int:
    """Return the number of steps that warm up."""
    fixed = schedule.warmup_steps
    return round(schedule.warmup_fraction * total_steps) if fixed is None else fixed


def decay_start(schedule: Schedule, total_steps: int) -> int:
    """Return the number of steps of a WSD schedule before its decay; the last step always decays."""
    return total_steps - max(1, round(schedule.decay_fraction * total_steps))


def longest_warmup(schedule: Schedule, total_steps: int) -> int:
    """Return the most warm-up steps after which the rate is still at its peak: a WSD decay must not cut it off."""
    return decay_start(schedule, total_steps) if schedule.kind == "wsd" else total_steps - 1


def shared_steps(schedule: Schedule, total_steps: int, other: Schedule, other_total_steps: int) -> int:
    """Return how many first steps have the same rate under two schedules, the last step of either left out."""
    shortest = min(total_steps, other_total_steps) - 1
    for step in range(shortest):
        if learning_rate_factor(schedule, step, total_steps) != learning_rate_factor(other, step, other_total_steps):
            return step
    return max(0, shortest)
