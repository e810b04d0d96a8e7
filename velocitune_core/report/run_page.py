"""The report as one self-contained HTML page, its figures inside it: no network, no JavaScript."""

from __future__ import annotations

from velocitune_core.report import figures
from velocitune_core.report.figures.style import percent, tokens_text
from velocitune_core.report.html import ReportFigure, render_page, save_png
from velocitune_core.report.selection import DOMAINS_DRAWN, most_moved
from velocitune_core.report.summary import (
    FLAG_MEANINGS,
    ReportData,
    answer,
    evaluation_share,
    formatted_rows,
    result_rows,
    summary_metrics,
)

__all__ = [
    "ReportData",
    "ReportFigure",
    "answer",
    "formatted_rows",
    "render_report",
    "report_figures",
    "result_rows",
    "save_png",
    "summary_metrics",
]


_CAPTIONS = {  # figure → its title, and how to read it
    "loss_per_domain": (
        "Held-out loss per domain over tokens",
        "Lower is better: a line should leave the dashed initial loss and come down to the dotted target; a line that "
        "ends above the dashed one is a domain that the model forgot.",
    ),
    "weights_over_time": (
        "Domain weights over the training",
        "The height of a band is the share of each batch drawn from that domain; a band that grows is a domain that "
        "the strategy found slow.",
    ),
    "velocity_per_domain": (
        "Learning velocity per domain over tokens",
        "A line near 1 is a domain that has hardly moved from its initial loss, one at 0 has reached its target or "
        "has none below its initial loss; the higher the line, the more weight the domain is given.",
    ),
    "laws": (
        "Scaling law and target per domain",
        "The targets are where the dashed ends of the curves meet the token budget; trust a target whose points lie on "
        "its curve and whose interval is short, and doubt one with a flag.",
    ),
    "predicted_against_reached": (
        "Predicted and reached loss per domain",
        "A bar to the right is a target that training went below, so it was too easy; a bar to the left is a target "
        "not reached; under the static strategy the bar is the error of the prediction itself.",
    ),
    "tokens_and_epochs": (
        "Tokens and epochs per domain",
        "A bar that leaves its outline is a domain whose text was repeated; a bar that does not fill it is one whose "
        "text was not all used.",
    ),
    "cost": (
        "Time and tokens spent",
        "The blue bars add up to the wall time of the training; the orange ones were spent before it began.",
    ),
}


def report_figures(report: ReportData) -> list[ReportFigure]:
    """The figures of a report in the order of the page; those with a panel or a row per domain show the most moved."""
    train, initial, proxies, few = report.train, report.initial, report.proxies, most_moved(report)
    drawn = {
        "loss_per_domain": figures.loss_per_domain(few.train, few.initial, few.targets),
        "weights_over_time": figures.weights_over_time(train, report.weights_0),
        "velocity_per_domain": figures.velocity_per_domain(train),
        "laws": figures.laws(few.targets, few.proxies, few.train.final),
        "predicted_against_reached": figures.predicted_against_reached(few.targets, few.train),
        "tokens_and_epochs": figures.tokens_and_epochs(few.train, few.manifest),
        "cost": figures.cost(train, proxies, report.base, initial),
    }
    return [ReportFigure(name, *_CAPTIONS[name], figure) for name, figure in drawn.items()]


def render_report(report: ReportData, drawn: list[ReportFigure] | None = None) -> str:
    """The page as HTML text; `drawn` spares drawing figures that the caller already has."""
    drawn = report_figures(report) if drawn is None else drawn
    rows = result_rows(report)
    flags = {flag for row in rows for flag in row["flags"]}
    return render_page(
        "report.html.jinja",
        drawn,
        report=report,
        answer=answer(report),
        rows=formatted_rows(report),
        worse=[row["worse_than_initial"] for row in rows],
        flags={flag.replace("_", " "): FLAG_MEANINGS[flag] for flag in sorted(flags)},
        domains_drawn=DOMAINS_DRAWN if len(rows) > DOMAINS_DRAWN else None,
        costs=_cost_cells(report),
        cost_note=_cost_note(report),
    )


def _cost_cells(report: ReportData) -> list[dict[str, object]]:
    train, rows = report.train, figures.cost_rows(report.train, report.proxies, report.base, report.initial)

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
    return [*before, cells("training, in all", train.seconds.total, train.tokens, False), *parts]


def _cost_note(report: ReportData) -> str:
    sentences = [
        f"Evaluation plus reweighting: {percent(evaluation_share(report.train))} of the training's wall time, at "
        f"{report.train.tokens_per_second:,.0f} tokens per second."
    ]
    if report.proxies and report.train.tokens:
        tokens = sum(proxy.tokens for proxy in report.proxies)
        sentences.append(f"Proxies: {percent(tokens / report.train.tokens)} of the training's tokens.")
    if report.train.resumed:
        sentences.append(f"The run was taken up again {report.train.resumed} time(s).")
    return " ".join(sentences)
