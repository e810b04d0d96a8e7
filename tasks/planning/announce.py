"""How long the work that begins will take, in tokens and in hours, before it begins."""

from __future__ import annotations

import logging
from collections.abc import Collection

from tasks.planning.build import Plan, make_plan
from tasks.planning.inputs import read_inputs
from tasks.planning.length import length_notices
from velocitune_core.config import Params
from velocitune_core.style.text import duration, tokens_text

logger = logging.getLogger(__name__)
TIMED_FROM = 5_000_000  # tokens still to train; less takes minutes, and timing a few steps takes seconds
TRAINING = {"base", "proxies", "weights", "train", "compare"}


def announce_length(params: Params, stages: Collection[str], compare: bool = False) -> None:
    """Log what the budgets mean for this data and, of long work, how long it takes on this machine.

    Nothing is logged if none of `stages`, which are still to run, trains. Data or a model whose size cannot be
    estimated leave it out: the stages report what is wrong with them.
    """
    if not TRAINING.intersection(stages):
        return
    try:
        notices = length_notices(params, read_inputs(params).manifest)
        plan = make_plan(params, compare=compare, probe=False)
        if still_to_train(plan, stages)[0] >= TIMED_FROM:
            plan = make_plan(params, compare=compare)
    except (ValueError, OSError):
        return
    for notice in notices:
        logger.info("%s", notice)
    tokens, seconds = still_to_train(plan, stages)
    if seconds is not None:
        logger.info(
            "about %s for %s tokens still to train, timed on this machine; `python -m flows.plan` has the stages",
            duration(seconds, rough=True),
            tokens_text(tokens),
        )


def still_to_train(plan: Plan, stages: Collection[str]) -> tuple[float, float | None]:
    """Return tokens and seconds of the runs of `stages` that are not finished; no seconds if a stage was not timed."""
    tokens, seconds = 0.0, []
    for stage, price in zip(plan.stages, plan.prices, strict=True):
        if stage.name.partition(",")[0] in stages:  # "weights, at most" belongs to `weights`
            left = 1 - stage.finished / max(1, len(stage.runs))
            tokens += left * price.tokens
            seconds.append(None if price.seconds is None else left * price.seconds)
    known = [each for each in seconds if each is not None]
    return tokens, sum(known) if len(known) == len(seconds) else None
