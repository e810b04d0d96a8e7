"""What is predicted for planned weights, and the course that leads there: what a steered plan is measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from velocitune_core.contracts import Planned, ProxyResult, Steering
from velocitune_core.planned_weights.plan import DECIMALS


def steering_of(
    planned: Planned, domains: Sequence[str], initial: Mapping[str, float], proxies: Sequence[ProxyResult]
) -> Steering:
    """Return the losses that are predicted for planned weights, and the course that leads there.

    Static training and planned training take the same course, as shares of their own gaps: what the largest proxy still
    had to go to its own last loss, at each measurement along it. A straight line where that proxy closed no gap.

    Args:
        domains: that are trained on.
        initial: losses of the base model.
        proxies: static runs.

    Raises ValueError without proxies.
    """
    if not proxies:
        raise ValueError("no proxy is there to take the course of a plan from; run the stage `proxies`")
    longest = max(proxies, key=lambda proxy: proxy.tokens)
    predicted = planned.plan["mixtures"]["recommended"]["losses"]
    course = {}
    for name in domains:
        last = longest.final.losses[name]
        gap = initial[name] - last
        along = [point for point in longest.points if 0 < point.tokens < longest.tokens] if gap > 0 else []
        shares = [min(max((point.losses[name] - last) / gap, 0.0), 1.0) for point in along]
        points = [(point.tokens / longest.tokens, share) for point, share in zip(along, shares, strict=True)]
        inner = [(round(progress, DECIMALS), round(share, DECIMALS)) for progress, share in points]
        course[name] = [(0.0, 1.0), *inner, (1.0, 0.0)]
    target_loss = {name: round(predicted[name]["value"], DECIMALS) for name in domains}
    return Steering(target_loss=target_loss, course=course)
