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
    warmup = round(schedule.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    floor = schedule.final_fraction
    if schedule.kind == "wsd":
        decay = max(1, round(schedule.decay_fraction * total_steps))
        progress = max(0, step + 1 - (total_steps - decay)) / decay
        return 1 - (1 - floor) * progress
    progress = (step + 1 - warmup) / max(1, total_steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
