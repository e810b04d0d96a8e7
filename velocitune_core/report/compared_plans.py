"""What the plans of a comparison predicted beside what their runs reached, and every label under their objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from velocitune_core.comparison.metrics import runs_of
from velocitune_core.comparison.statistics import ComparisonSummary, estimate
from velocitune_core.comparison.tables import MISSING, Row, estimate_text, number_text
from velocitune_core.contracts import ComparedRun
from velocitune_core.mixture_law.mixture_plan import Interval
from velocitune_core.mixture_law.named_guard import NamedGuard, guards_of
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.style.text import difference_text, limit_text, percent, signed

KEPT = 1e-6  # nats by which a guard may be exceeded


def losses_of(run: ComparedRun) -> dict[str, float]:
    """Return the final losses of a run, of sets without training text too."""
    return run.result.final | run.result.measured


@dataclass(frozen=True)
class Judged:
    """A prediction beside what was reached."""

    name: str  # a set, or an average
    predicted: Interval
    reached: dict[int, float]  # by seed, nats

    @property
    def inside(self) -> int | None:
        """The number of seeds in which the interval holds what was reached; None without an interval."""
        low, high = self.predicted.low, self.predicted.high
        return None if low is None or high is None else sum(low <= each <= high for each in self.reached.values())


@dataclass(frozen=True)
class PlanOutcome:
    """A plan, and its runs."""

    name: str  # the label, or the label and a seed
    label: str
    fitted: FittedPlan
    losses: list[Judged]  # of sets with a target
    differences: list[Judged]  # to the baseline of the same seed: averages, then sets

    @property
    def coverage(self) -> tuple[int, int]:
        """Intervals of losses that hold what was reached, and all of them, over sets and seeds."""
        judged = [each for each in self.losses if each.inside is not None]
        return sum(each.inside or 0 for each in judged), sum(len(each.reached) for each in judged)

    @property
    def error(self) -> float | None:
        """Mean of reached minus predicted difference of the average, nats; None where no seed has a baseline."""
        for each in self.differences:
            if each.name == self.fitted.plan.average and each.reached:
                return sum(each.reached.values()) / len(each.reached) - each.predicted.value
        return None


def plan_outcomes(summary: ComparisonSummary, plans: Mapping[str, FittedPlan]) -> list[PlanOutcome]:
    """Return predicted and reached of each plan that was trained.

    Args:
        plans: by name: of a label, or of a label under one seed, as `<label>-seed-<seed>`.
    """
    found, baseline = [], runs_of(summary.comparison, summary.baseline.label)
    for name, fitted in plans.items():
        label, runs = _runs_under(summary, name)
        if not runs:
            continue
        predicted = fitted.planned.plan["mixtures"]["recommended"]
        reached = {seed: losses_of(run) for seed, run in runs.items()}
        differences = {
            seed: {name: loss - losses_of(baseline[seed])[name] for name, loss in losses.items()}
            for seed, losses in reached.items()
            if seed in baseline
        }
        targets = [name for name in fitted.law.sets if name not in fitted.short]
        losses = [Judged(name, _interval(predicted["losses"][name]), _of(reached, name)) for name in targets]
        judged = [
            Judged(name, _interval(each), {seed: _average(fitted, name, row) for seed, row in differences.items()})
            for name, each in predicted["differences"].items()
        ]
        sets = predicted["set_differences"].items()
        judged += [Judged(name, _interval(each), _of(differences, name)) for name, each in sets]
        found.append(PlanOutcome(name, label, fitted, losses, judged))
    return found


def _runs_under(summary: ComparisonSummary, name: str) -> tuple[str, dict[int, ComparedRun]]:
    """Return the label of a plan, and the runs that held the plan, by seed."""
    if runs := runs_of(summary.comparison, name):
        return name, runs
    label, _, seed = name.rpartition("-seed-")
    return label, {key: run for key, run in runs_of(summary.comparison, label).items() if str(key) == seed}


def plan_rows(plans: Mapping[str, FittedPlan]) -> list[Row]:
    """Return a row per plan: its weights, what it is predicted to gain over static training, and its price."""
    return [
        {
            "plan": name,
            "predicted gain": number_text(fitted.planned.worth.gain, "nats"),
            "runs": str(sum(run.use != "earlier" for run in fitted.planned.runs)),  # those that it pays for
            "of a run": percent(fitted.planned.worth.share),
        }
        | {domain: f"{weight:.3f}" for domain, weight in fitted.plan.weights.items()}
        for name, fitted in sorted(plans.items())
    ]


def outcome_rows(outcome: PlanOutcome) -> list[Row]:
    """Return a row per average and set: predicted and reached difference, and of sets the losses."""
    losses, rows = {each.name: each for each in outcome.losses}, []
    averages = len(outcome.differences) - len(outcome.fitted.law.sets)
    for index, each in enumerate(outcome.differences):
        loss = losses.get(each.name) if index >= averages else None
        rows.append(
            {
                "of": f"average: {each.name}" if index < averages else each.name,
                "difference, predicted": _interval_text(each.predicted, sign=True),
                "difference, reached": estimate_text(estimate(each.reached.values()), "nats", sign=True),
                "loss, predicted": MISSING if loss is None else _interval_text(loss.predicted),
                "loss, reached": MISSING if loss is None else estimate_text(estimate(loss.reached.values()), "nats"),
                "inside": _inside(loss),
            }
        )
    return rows


def outcome_in_words(outcome: PlanOutcome) -> str:
    """Return a sentence on how far the prediction held."""
    inside, count = outcome.coverage
    said = [f"{inside} of {count} intervals hold what was reached."] if count else []
    if outcome.error is not None:
        average = outcome.fitted.plan.average
        said.append(
            f"The difference of '{average}' came out {difference_text(outcome.error)} nats from the prediction."
        )
    return " ".join(said)


@dataclass(frozen=True)
class UnderObjective:
    """A label under the objective of a plan, by seed: the average's difference to the baseline, and its guards."""

    label: str
    average: dict[int, float]
    guards: dict[str, dict[int, float]]  # what a guard limits, by its text


def under_objective(summary: ComparisonSummary, fitted: FittedPlan) -> list[UnderObjective]:
    """Return every label under an objective; seeds without a baseline are left out."""
    baseline, found = runs_of(summary.comparison, summary.baseline.label), []
    for label in summary.strategies:
        average: dict[int, float] = {}
        guards: dict[str, dict[int, float]] = {text: {} for text, *_ in _guards(fitted)}
        for seed, run in runs_of(summary.comparison, label).items():
            if seed not in baseline:
                continue
            losses, static = losses_of(run), losses_of(baseline[seed])
            row = {name: loss - static[name] for name, loss in losses.items()}
            average[seed] = _average(fitted, fitted.plan.average, row)
            own = {name: losses[name] for name in fitted.law.sets}
            for text, guard, _ in _guards(fitted):
                guards[text][seed] = guard.reached(fitted.objective, own, static, fitted.law.domains)
        found.append(UnderObjective(label, average, guards))
    return found


def objective_rows(summary: ComparisonSummary, fitted: FittedPlan) -> list[Row]:
    """Return the stated objective of a plan, reached by every label: average, guards, and whether they are kept."""
    limits, rows = {text: limit for text, _, limit in _guards(fitted)}, []
    for each in under_objective(summary, fitted):
        own = each.label == summary.baseline.label
        value = MISSING if own else estimate_text(estimate(each.average.values()), "nats", sign=True)
        row = {"strategy": each.label, f"{fitted.plan.average}, to baseline": value}
        for text, reached in each.guards.items():
            kept = sum(value <= limits[text] + KEPT for value in reached.values())
            shown = estimate_text(estimate(reached.values()), "nats", sign=True)
            row[text] = f"{shown}, kept in {kept} of {len(reached)}" if reached else MISSING
        rows.append(row)
    return rows


def best_in_words(summary: ComparisonSummary, fitted: FittedPlan) -> str:
    """Return a sentence on the label that is best under an objective, of those that keep its guards under all seeds."""
    limits = {text: limit for text, _, limit in _guards(fitted)}
    kept = [
        each
        for each in under_objective(summary, fitted)
        if each.average
        and all(value <= limits[text] + KEPT for text, reached in each.guards.items() for value in reached.values())
    ]
    among = "Of the labels that keep its guards under all seeds" if limits else "Of all labels"
    if not kept:
        return "No label keeps its guards under all seeds."
    means = {each.label: sum(each.average.values()) / len(each.average) for each in kept}
    best = min(means, key=lambda label: means[label])
    if best == summary.baseline.label:
        return f"{among}, none has a smaller '{fitted.plan.average}' than {best}."
    return f"{among}, {best} has the least '{fitted.plan.average}': {difference_text(means[best])} to the baseline."


def _guards(fitted: FittedPlan) -> list[tuple[str, NamedGuard, float]]:
    """Return the guards on losses as text, with their limits; those on all sets are one."""
    return [
        (f"{'every set' if guard == NamedGuard('set') else guard.title} ≤ {limit_text(limit)}", guard, limit)
        for guard, limit in guards_of(fitted.objective).items()
    ]


def _average(fitted: FittedPlan, name: str, row: Mapping[str, float]) -> float:
    return sum(share * row[each] for each, share in fitted.shares(name).items() if share)


def _of(rows: Mapping[int, Mapping[str, float]], name: str) -> dict[int, float]:
    return {seed: row[name] for seed, row in rows.items()}


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval(found["value"], found["low"], found["high"])


def _interval_text(each: Interval, *, sign: bool = False) -> str:
    def text(value: float) -> str:
        return signed(value, 3) if sign else f"{value:.3f}"

    if each.low is None or each.high is None:
        return text(each.value)
    return f"{text(each.value)} [{text(each.low)}, {text(each.high)}]"


def _inside(loss: Judged | None) -> str:
    if loss is None or loss.inside is None:
        return MISSING
    return f"{loss.inside} of {len(loss.reached)}"
