"""How long the work that begins will take, in tokens and in hours, before it begins."""

from __future__ import annotations

import logging
from collections.abc import Collection

from tasks.planning.build import make_plan
from tasks.planning.inputs import read_inputs
from tasks.planning.length import length_notices
from tasks.planning.time_left import TRAINING, TimeLeft
from velocitune_core.config import Params
from velocitune_core.style.text import duration, tokens_text

logger = logging.getLogger(__name__)
TIMED_FROM = 5_000_000  # tokens still to train; less takes minutes, and timing a few steps takes seconds


def announce_length(params: Params, stages: Collection[str], compare: bool = False) -> TimeLeft:
    """Log what the budgets mean for this data and, of long work, how long it takes on this machine.

    Nothing is logged if none of `stages`, which are still to run, trains. Data or a model whose size cannot be
    estimated leave it out: the stages report what is wrong with them.

    Returns what the headings of the stages take their times from, so that they agree with what is logged.
    """
    if not TRAINING.intersection(stages):
        return TimeLeft(params)
    try:
        manifest = read_inputs(params).manifest
        notices = length_notices(params, manifest)
        left = TimeLeft(params, make_plan(params, compare=compare, probe=False))
        is_long = left.tokens(stages) >= TIMED_FROM
        if is_long and left.seconds(stages, manifest) is None:
            left = TimeLeft(params, make_plan(params, compare=compare))
        seconds = left.seconds(stages, manifest)
    except (ValueError, OSError):
        return TimeLeft(params)
    for notice in notices:
        logger.info("%s", notice)
    if is_long and seconds is not None:
        logger.info(
            "about %s for %s tokens still to train, timed on this machine; `python -m flows.plan` has the stages",
            duration(seconds, rough=True),
            tokens_text(left.tokens(stages)),
        )
    return left
