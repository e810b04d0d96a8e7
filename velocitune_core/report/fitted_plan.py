"""A plan with the law behind it, fitted again to the runs of its swarm: what pages and figures of a plan show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from velocitune_core.contracts import Planned, Targets
from velocitune_core.mixture_law import MixtureLaw, MixturePlan, Objective, optimise_mixture
from velocitune_core.mixture_law.named_guard import NamedGuard
from velocitune_core.mixture_law.trade_off_curve import TradeOffPoint, curves_of, place_of
from velocitune_core.planned_weights import full_law, largest_law
from velocitune_core.report.plan_page import plan_page

Losses = Mapping[str, float]  # by held-out set, nats per token


@dataclass(frozen=True)
class FittedPlan:
    """The plan in results/weights.json, its law of the full budget, and the objective."""

    planned: Planned
    law: MixtureLaw
    objective: Objective
    plan: MixturePlan
    short: tuple[str, ...] = ()  # sets without a target, whose losses are not those of a whole run

    @classmethod
    def of(cls, planned: Planned, objective: Objective, targets: Targets, bootstrap: int) -> FittedPlan:
        """Return the plan with its law.

        Args:
            planned: as the stage `weights` wrote it.
            objective: with initial weights, as the stage had it.
            targets: what static training reaches.
            bootstrap: resamples of the runs; 0 for none, and then no intervals.

        Raises MixtureLawError and ObjectiveError as `plan_weights` does.
        """
        fitted = largest_law(planned.runs, planned.law["name"], bootstrap)
        sibling = planned.model is not None
        law = full_law(fitted, planned.runs, objective.initial_weights or {}, targets, sibling=sibling)
        short = tuple(name for name in law.sets if name not in targets.domains)
        return cls(planned, law, objective, optimise_mixture(law, objective), short)

    @cached_property
    def curves(self) -> dict[str, list[TradeOffPoint]]:
        """Trade-off curves by the name of their guard, the first of them the guard that the objective has, if any."""
        return curves_of(self.law, self.objective, self.plan.mixtures, self.plan.baseline)

    @property
    def measured_only(self) -> list[str]:
        """The held-out sets that no training domain is named after."""
        return [name for name in self.law.sets if name not in self.law.domains]

    def shares(self, average: str) -> dict[str, float]:
        """Return the share of each set in an average."""
        return self.objective.average_shares(average, self.law.domains, self.law.sets)

    def is_comparable(self, guard: str) -> bool:
        """Return whether losses of a whole run may be drawn beside predictions of static ones in a curve's plane."""
        return not set(self.short) & (self.sets_of(guard) | self.sets_of(self.plan.average))

    def sets_of(self, guard: str) -> set[str]:
        """Return the sets whose losses a guard, or an average, reads."""
        return NamedGuard.of(guard).sets(self.objective, self.law.domains, self.law.sets)

    def place(self, guard: str, losses: Losses, static: Losses) -> tuple[float, float]:
        """Return where losses lie in the plane of a trade-off curve: value of the guard, difference of the average."""
        return place_of(self.objective, guard, losses, static, self.law.domains)

    def page(self, others: Mapping[str, Mapping[str, float]] | None = None) -> str:
        """Return the page on which any mixture can be tried; `others` are weights of further ones, by name.

        Raises ValueError as `plan_page` does.
        """
        return plan_page(
            self.law,
            self.objective,
            self.plan,
            trade_offs=self.curves,
            others=others or {},
            sentences=self.planned.explanation,
            rounds=self.planned.rounds,
        )


def plan_metrics(fitted: FittedPlan) -> dict[str, float]:
    """Return the flat metrics of a plan: weights, predicted differences to static training (nats), and the price."""
    recommended, worth = fitted.plan.mixtures["recommended"], fitted.planned.worth
    found = {f"plan/weight/{name}": weight for name, weight in fitted.plan.weights.items()}
    found |= {f"plan/difference/{name}": each.value for name, each in recommended.differences.items()}
    found |= {f"plan/set_difference/{name}": each.value for name, each in recommended.set_differences.items()}
    return found | {"plan/price_in_runs": worth.share}
