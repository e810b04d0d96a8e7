"""Which domains the figures of a report show, where there are more than anybody can tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from velocitune_core.contracts import InitialLosses, LossPoint, TrainResult
from velocitune_core.report.summary import ReportData

DOMAINS_DRAWN = 36
Value = TypeVar("Value")


def most_moved(report: ReportData, at_most: int = DOMAINS_DRAWN) -> ReportData:
    """The report of the domains whose share of the batch changed most, or of all where there are no more than that."""
    if len(report.manifest.domains) <= at_most:
        return report
    last = report.train.domain_weights[-1].weights if report.train.domain_weights else report.weights_0
    change = {name: abs(last[name] - share) for name, share in report.weights_0.items()}
    names = set(sorted(change, key=lambda name: (-change[name], name))[:at_most])

    def chosen(values: Mapping[str, Value]) -> dict[str, Value]:
        return {name: value for name, value in values.items() if name in names}

    def points(all_points: list[LossPoint]) -> list[LossPoint]:
        return [point.model_copy(update={"losses": chosen(point.losses)}) for point in all_points]

    def training(train: TrainResult) -> TrainResult:
        weights = [
            point.model_copy(
                update={"weights": chosen(point.weights), "velocity": point.velocity and chosen(point.velocity)}
            )
            for point in train.domain_weights
        ]
        per_domain = ("final", "mean_domain_weights", "tokens_per_domain", "epochs_per_domain")
        changes = {field: chosen(getattr(train, field)) for field in per_domain}
        return train.model_copy(update={**changes, "points": points(train.points), "domain_weights": weights})

    initial = InitialLosses(
        losses=chosen(report.initial.losses), tokens=chosen(report.initial.tokens), seconds=report.initial.seconds
    )
    return replace(
        report,
        manifest=report.manifest.model_copy(update={"domains": chosen(report.manifest.domains)}),
        initial=initial,
        proxies=tuple(proxy.model_copy(update={"points": points(proxy.points)}) for proxy in report.proxies),
        targets=report.targets.model_copy(update={"domains": chosen(report.targets.domains)}),
        train=training(report.train),
        weights_0=chosen(report.weights_0),
    )
