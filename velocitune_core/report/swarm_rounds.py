"""The rounds of a swarm: what was known after each, at what price, and what it bought."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from velocitune_core.contracts import SwarmRound
from velocitune_core.style.text import counted, signed

DIGITS = 4
NONE = "–"


def round_rows(rounds: Sequence[SwarmRound]) -> list[dict[str, str]]:
    """Return a row per round: runs and price so far, what is known, what the round bought, and why there is a next.

    Regret is what the recommended weights may miss the best possible by, the spread is of the optima of resamples. A
    round buys a smaller regret, or another prediction, than the one before.
    """
    bought = ["first round", *(_bought(before, each) for before, each in pairwise(rounds))]
    return [
        {
            "runs": str(each.runs),
            "price": f"{each.share:.2f} of the main run",
            "predicted": signed(each.predicted, DIGITS),
            "regret at most": NONE if each.regret is None else f"{each.regret:.4f}",
            "spread of optima": f"{each.spread:.3f}",
            "bought": what,
            "next": f"{counted(each.further, 'mixture')}, expected {signed(-each.expected, DIGITS)}"
            if each.further
            else "end",
        }
        for each, what in zip(rounds, bought, strict=False)
    ]


def _bought(before: SwarmRound, after: SwarmRound) -> str:
    """Return what a round changed, and its own price."""
    found = f"prediction {_change(before.predicted, after.predicted)}, for {after.share - before.share:.2f}"
    if before.regret is None or after.regret is None:
        return found
    return f"regret {_change(before.regret, after.regret)}, {found}"


def _change(before: float, after: float) -> str:
    return signed(after - before, DIGITS, zero="unchanged")


def round_metrics(each: SwarmRound) -> dict[str, float]:
    """Return what is known after a round as flat metrics, nats; the price in multiples of the main run."""
    found = {"predicted": each.predicted, "regret": each.regret, "spread": each.spread, "price_in_runs": each.share}
    return {f"plan/rounds/{name}": value for name, value in found.items() if value is not None}
