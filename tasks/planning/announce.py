"""How long the work that begins will take, in tokens and in hours, before it begins."""

from __future__ import annotations

import logging

from tasks.planning.build import make_plan
from tasks.planning.inputs import read_inputs
from tasks.planning.length import length_notices
from tasks.planning.view import duration_text
from velocitune_core.config import Params
from velocitune_core.style.text import tokens_text

logger = logging.getLogger(__name__)
TIMED_FROM = 5_000_000  # tokens in all; less takes minutes, and timing a few steps takes seconds


def announce_length(params: Params, compare: bool = False) -> None:
    """Log what the budgets mean for this data and, of long work, how long it takes on this machine.

    Data or a model whose size cannot be estimated leave it out: the stages report what is wrong with them.
    """
    try:
        notices = length_notices(params, read_inputs(params).manifest)
        plan = make_plan(params, compare=compare, probe=False)
        if plan.total.tokens >= TIMED_FROM:
            plan = make_plan(params, compare=compare)
    except (ValueError, OSError):
        return
    for notice in notices:
        logger.info("%s", notice)
    if plan.total.seconds is not None:
        logger.info(
            "about %s for %s tokens in all, timed on this machine; `python -m flows.plan` has the stages",
            duration_text(plan.total.seconds),
            tokens_text(plan.total.tokens),
        )
