"""From what size of run on a fixed gain is worth more than training on for its price."""

from __future__ import annotations

from collections.abc import Callable

LARGEST = 2.0**40  # multiples of the price that are looked at


def pays_from(loss: Callable[[float], float], gain: float, price: float) -> float | None:
    """Return the smallest run, in multiples of `price`, from which on training on for `price` gains less than `gain`.

    The gain in nats is taken to be the same for every size of run; what training on gains falls with the size.

    Args:
        loss: of static training after so many tokens, nats per token.
        gain: of what costs `price`, nats per token.
        price: tokens.

    Returns None if the gain is not above 0, or the price is 0.
    """

    def gains_less(multiple: float) -> bool:
        return loss(multiple * price) - loss((multiple + 1) * price) < gain

    if gain <= 0 or price <= 0 or not gains_less(LARGEST):
        return None
    low, high = 2.0**-20, LARGEST
    if gains_less(low):
        return low
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if gains_less(middle) else (middle, high)
    return high
