"""Domain weights and held-out losses over tokens as tables, from which `dvc plots diff` overlays several runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from velocitune_core.report.report_data import ReportData


def lines_over_tokens(report: ReportData) -> dict[str, list[dict[str, Any]]]:
    """Return tables by name, with a row for each point and domain.

    `domain_weights`: tokens, domain, weight, up to the end of the run. `held_out_losses`: tokens, domain, loss in nats
    per token, from the base model on.
    """
    train = report.train
    weights = [(point.tokens, point.weights) for point in train.domain_weights]
    if weights and weights[-1][0] < train.tokens:
        weights.append((train.tokens, weights[-1][1]))
    losses = [(point.tokens, point.losses) for point in train.points]
    if not losses or losses[0][0] > 0:
        losses.insert(0, (0, report.initial.losses))
    return {"domain_weights": _table("weight", weights), "held_out_losses": _table("loss", losses)}


def _table(column: str, points: Iterable[tuple[int, Mapping[str, float]]]) -> list[dict[str, Any]]:
    return [
        {"tokens": tokens, "domain": name, column: values[name]} for tokens, values in points for name in sorted(values)
    ]
