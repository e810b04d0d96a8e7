"""The report of one run as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from matplotlib.figure import Figure

from velocitune_core.contracts import LossPoint, TrainResult
from velocitune_core.report.captions import CAPTIONS, CHEAP, LIMIT, REACHED
from velocitune_core.report.domain_table import cautions, domain_rows, warnings
from velocitune_core.report.figures import cost, plan, plan_law, targets, training
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.report.headline import answer
from velocitune_core.report.html import ReportFigure, render_page
from velocitune_core.report.other_trainers import trainer_blocks
from velocitune_core.report.report_data import ReportData
from velocitune_core.report.run_facts import RunFacts, day, fact_rows, tiles
from velocitune_core.report.shades import shades_of_rates
from velocitune_core.report.summary import FLAG_MEANINGS, evaluation_share, result_rows
from velocitune_core.report.swarm_rounds import round_rows
from velocitune_core.style.text import percent, tokens_text

WIDE, SMALL = 420, (300, 200)  # pixels: width of a panel that has half a row or a phone, and one of many panels
MANY = 14  # rows, that stand closer
DOMAINS_DRAWN = 36  # more rows or panels in one figure cannot be read
_VELOCITY_IN_SEARCH = "Learning velocity per domain in the search"
Value = TypeVar("Value")


def plan_figures(fitted: FittedPlan, reached: Mapping[str, float] | None = None) -> list[ReportFigure]:
    """Draw the figures of a plan's law; `reached` are the losses of the run under the planned weights, by set."""
    rows = _rows(len(fitted.law.sets) + 2)
    trade_offs = _figure("plan_trade_offs", plan_law.trade_off_curves(fitted, reached))
    who_pays = _figure("plan_who_pays", plan_law.who_pays(fitted), size=(WIDE, rows), wide=(960, rows))
    return [
        _also_read(
            trade_offs,
            LIMIT * bool(plan_law.limits_of(fitted)),
            REACHED * bool(plan_law.reached_in(fitted, reached)),
        ),
        _also_read(who_pays, CHEAP * bool(plan_law.cheap_beside(fitted.plan))),
        _figure("plan_rates", plan_law.who_teaches_whom(fitted))._replace(shades=shades_of_rates(fitted)),
        _figure("plan_runs", plan_law.runs_left_out(fitted), size=SMALL, layout="small"),
    ]


def report_figures(
    report: ReportData, fitted: FittedPlan | None = None, facts: RunFacts | None = None
) -> list[ReportFigure]:
    """Draw all figures; those with a panel or row per domain show at most DOMAINS_DRAWN.

    Args:
        fitted: the law of the plan, if the weights were planned.
        facts: with the logged steps of the run.
    """
    train, initial, few = report.train, report.initial, most_moved(report, DOMAINS_DRAWN)
    rows, costs = _rows(len(few.train.final)), (train, report.proxies, report.base, initial, report.weights)
    change = training.change_per_domain(few.train, few.initial, few.targets)
    weights = training.weights_over_time(train, report.initial_domain_weights)
    losses = training.loss_per_domain(few.train, few.initial, few.targets)
    laws = targets.laws(few.targets, few.proxies, few.train.final)
    reached = targets.predicted_against_reached(few.targets, few.train)
    tokens = cost.tokens_and_epochs(few.train, few.manifest)
    search = search_of(report)
    velocity = training.velocity_per_domain(search or train, _VELOCITY_IN_SEARCH if search else training.VELOCITY)
    figures = [
        _figure("change_per_domain", change, size=(WIDE, rows), wide=None),  # these two stand side by side
        _figure("weights_over_time", weights, size=(WIDE, min(rows, 500)), wide=None),
        _figure("loss_per_domain", losses, size=SMALL, layout="small"),
        _figure("velocity_per_domain", velocity),
        _figure("training_curve", training.training_curve((facts or RunFacts()).steps), size=(WIDE, 260)),
        _figure("laws", laws, size=SMALL, layout="small"),
        _figure("predicted_against_reached", reached, size=(WIDE, rows)),
        _figure("tokens_and_epochs", tokens, size=(WIDE, rows), wide=(960, rows)),
        _figure("cost", cost.time_and_tokens_spent(*costs), size=(WIDE, _rows(len(cost.cost_rows(*costs))))),
    ]
    if search is not None:
        title = CAPTIONS["search_weights"][0]
        moved = training.weights_over_time(search, report.initial_domain_weights, title)
        figures.append(_figure("search_weights", moved, size=(WIDE, min(rows, 500)), wide=None))
    if report.weights is not None and (planned := report.weights.planned) is not None:
        drawn = plan.plan_and_outcome(planned, report.initial_domain_weights, train.final | train.measured)
        figures.append(_figure("plan", drawn, size=(WIDE, rows)))
    return figures if fitted is None else [*figures, *plan_figures(fitted, train.final | train.measured)]


def search_of(report: ReportData) -> TrainResult | None:
    """Return the run with the weights and velocities of the search behind its weights; None without a search."""
    weights = report.weights
    if weights is None or not weights.searched:
        return None
    of_search = {"strategy": weights.strategy, "domain_weights": weights.searched, "tokens": weights.search[-1].tokens}
    return report.train.model_copy(update=of_search)


def _figure(name: str, figure: Figure, **shape: Any) -> ReportFigure:
    return ReportFigure(name, *CAPTIONS[name], figure, **shape)


def _also_read(figure: ReportFigure, *sentences: str) -> ReportFigure:
    """Return a figure with further sentences on what is drawn; empty ones are left out."""
    return figure._replace(reading=" ".join([figure.reading, *filter(None, sentences)]))


def _rows(count: int) -> int:
    """Return the height of a panel with so many rows, in pixels."""
    return 70 + (30 if count <= MANY else 18) * max(count, 5)


def render_report(report: ReportData, drawn: list[ReportFigure] | None = None, facts: RunFacts | None = None) -> str:
    """Return the page as HTML.

    Args:
        drawn: the figures, if the caller has drawn them already; those that are not among them are left out.
        facts: of the run, as far as they are known.
    """
    facts = facts or RunFacts()
    predictions, planned = predictions_reached(report), report.weights.planned if report.weights else None
    rows, flags = domain_rows(report, facts), {flag for row in result_rows(report) for flag in row["flags"]}
    return render_page(
        "report.html.jinja",
        report_figures(report, facts=facts) if drawn is None else drawn,
        report=report,
        answer=answer(report),
        day=day(facts),
        tiles=tiles(report, facts),
        facts=fact_rows(report, facts),
        trainers=trainer_blocks(report.train, report.manifest),
        warnings=warnings(report),
        cautions=cautions(report),
        plan=planned.explanation if planned else [],
        rounds=round_rows(planned.rounds) if planned else [],
        predictions=predictions,
        coverage=coverage_text([row["inside"] for row in predictions]),
        rows=rows,
        flags={flag.replace("_", " "): FLAG_MEANINGS[flag] for flag in sorted(flags)},
        domains=len(report.train.final),
        domains_drawn=DOMAINS_DRAWN if len(report.train.final) > DOMAINS_DRAWN else None,
        costs=_cost_cells(report),
        evaluation_share=percent(evaluation_share(report.train)),
        changed_settings=facts.changed_settings,
    )


def predictions_reached(report: ReportData) -> list[dict[str, str]]:
    """Return a row per held-out set: the loss that a plan predicted, its interval, and what was reached; or nothing.

    The predicted loss of a set without a target is not at the level of a whole run, so what was reached does not judge
    it.
    """
    if report.weights is None or report.weights.planned is None:
        return []
    reached, rows = report.train.final | report.train.measured, []
    for name, loss in report.weights.planned.plan["mixtures"]["recommended"]["losses"].items():
        low, high, short = loss["low"], loss["high"], name not in report.targets.domains
        known = low is not None and high is not None
        inside = "no target" if short else "" if not known else "yes" if low <= reached[name] <= high else "no"
        interval = f"{low:.3f} … {high:.3f}" if known else "–"
        cells = {"held-out set": name, "predicted": f"{loss['value']:.3f}", "interval": interval}
        rows.append(cells | {"reached": f"{reached[name]:.3f}", "inside": inside})
    return rows


def coverage_text(inside: Sequence[str]) -> str:
    """Return how many intervals hold what was reached, from "yes" and "no"; nothing without intervals."""
    judged = [each for each in inside if each in {"yes", "no"}]
    return f"{judged.count('yes')} of {len(judged)} intervals hold what was reached." if judged else ""


def _cost_cells(report: ReportData) -> list[dict[str, object]]:
    """Return the rows of the cost table; those with `part` are parts of the training run."""
    train = report.train
    rows = cost.cost_rows(train, report.proxies, report.base, report.initial, report.weights)

    def cells(name: str, seconds: float, tokens: int | None, part: bool) -> dict[str, object]:
        return {
            "name": name,
            "seconds": f"{seconds:,.1f}",
            "seconds_share": percent(seconds / train.seconds.total) if train.seconds.total else "–",
            "tokens": "–" if tokens is None else tokens_text(tokens),
            "tokens_share": percent(tokens / train.tokens) if tokens is not None and train.tokens else "–",
            "part": part,
        }

    before = [cells(row.name, row.seconds, row.tokens, False) for row in rows if not row.in_training]
    parts = [cells(row.name, row.seconds, row.tokens, True) for row in rows if row.in_training]
    return [*before, cells("training run, total", train.seconds.total, train.tokens, False), *parts]


def most_moved(report: ReportData, at_most: int) -> ReportData:
    """Return the report of the `at_most` domains whose weight changed most."""
    if len(report.manifest.domains) <= at_most:
        return report
    last = report.train.domain_weights[-1].weights if report.train.domain_weights else report.initial_domain_weights
    change = {name: abs(last[name] - share) for name, share in report.initial_domain_weights.items()}
    names = set(sorted(change, key=lambda name: (-change[name], name))[:at_most])

    def chosen(values: Mapping[str, Value]) -> dict[str, Value]:
        return {name: value for name, value in values.items() if name in names}

    def points(all_points: list[LossPoint]) -> list[LossPoint]:
        return [point.model_copy(update={"losses": chosen(point.losses)}) for point in all_points]

    def run(train: TrainResult) -> TrainResult:
        weights = [
            point.model_copy(
                update={"weights": chosen(point.weights), "velocity": point.velocity and chosen(point.velocity)}
            )
            for point in train.domain_weights
        ]
        per_domain = ("final", "mean_domain_weights", "tokens_per_domain", "epochs_per_domain")
        changes = {field: chosen(getattr(train, field)) for field in per_domain}
        return train.model_copy(update={**changes, "points": points(train.points), "domain_weights": weights})

    few = {"losses": chosen(report.initial.losses), "tokens": chosen(report.initial.tokens)}
    return replace(
        report,
        manifest=report.manifest.model_copy(update={"domains": chosen(report.manifest.domains)}),
        initial=report.initial.model_copy(update=few),
        proxies=tuple(proxy.model_copy(update={"points": points(proxy.points)}) for proxy in report.proxies),
        targets=report.targets.model_copy(update={"domains": chosen(report.targets.domains)}),
        train=run(report.train),
        initial_domain_weights=chosen(report.initial_domain_weights),
    )
