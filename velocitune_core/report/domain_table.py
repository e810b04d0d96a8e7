"""The table of a report's page, a row per domain, and the lines on what should be known of it."""

from __future__ import annotations

import math
from typing import NamedTuple

from velocitune_core.contracts import overfitted_domains
from velocitune_core.contracts.overfitting import REMEDY
from velocitune_core.report.report_data import ReportData
from velocitune_core.report.run_facts import RunFacts, bits_per_byte
from velocitune_core.report.summary import key_figures, result_rows
from velocitune_core.style.text import difference_text, listed, percent, signed, tokens_text

MEAN = "mean"
OVERFITTED_SHOWN = 3  # domains, in words


class Cell(NamedTuple):
    """A number, with what it was before, and whether it is shown as one that did harm."""

    text: str
    before: str = ""
    worse: bool = False


def domain_rows(report: ReportData, facts: RunFacts) -> list[dict[str, Cell]]:
    """Return a row per domain, column heading → cell, and last the mean over domains; losses in nats per token."""
    mean = report.train.mean_domain_weights
    bits = [bits_per_byte(report, facts, each) for each in (report.initial.losses, report.train.final)]
    rows = []
    for row in result_rows(report):
        name, worse = row["domain"], row["worse_than_initial"]
        before, after = row["initial"], row["reached"]
        cells = {
            "domain": Cell(name),
            "weight": Cell(percent(row["final_weight"]), percent(row["initial_weight"]), worse=row["overfitted"]),
            "mean weight": Cell(percent(mean[name])),
            "loss": Cell(f"{after:.3f}", f"{before:.3f}"),
            "change": Cell(signed(after - before, 3), worse=worse),
            "target": Cell(f"{row['target']:.3f}"),
            "gap closed": Cell("–" if row["gap_closed"] is None else f"{row['gap_closed'] * 100:.0f} %"),
            "perplexity": Cell(_perplexity(after), _perplexity(before)),
            "bits per byte": Cell(f"{bits[1][name]:.3f}", f"{bits[0][name]:.3f}") if name in bits[1] else Cell("–"),
            "tokens": Cell(tokens_text(row["tokens"])),
            "epochs": Cell(f"{row['epochs']:.2f}"),
        }
        rows.append(cells if bits[1] else {key: each for key, each in cells.items() if key != "bits per byte"})
    return [*rows, _mean_row(report, bits)] if len(rows) > 1 else rows


def _mean_row(report: ReportData, bits: list[dict[str, float]]) -> dict[str, Cell]:
    names = sorted(report.train.final)
    before, after = (
        sum(each[name] for name in names) / len(names) for each in (report.initial.losses, report.train.final)
    )
    cells = {
        "domain": Cell(MEAN),
        "weight": Cell(""),
        "mean weight": Cell(""),
        "loss": Cell(f"{after:.3f}", f"{before:.3f}"),
        "change": Cell(signed(after - before, 3), worse=after > before),
        "target": Cell(""),
        "gap closed": Cell(""),
        "perplexity": Cell(_perplexity(after), _perplexity(before)),
    }
    if bits[1]:
        first, last = (sum(each.values()) / len(each) for each in bits)
        cells["bits per byte"] = Cell(f"{last:.3f}", f"{first:.3f}") if len(bits[1]) == len(names) else Cell("")
    return cells | {"tokens": Cell(tokens_text(report.train.tokens / len(names))), "epochs": Cell("")}


def _perplexity(loss: float) -> str:
    return f"{math.exp(loss):.1f}" if loss < 9 else f"{math.exp(loss):,.0f}"


def warnings(report: ReportData) -> list[str]:
    """Return what went wrong, a sentence each: shown in red."""
    rows = result_rows(report)
    worse = [
        f"{row['domain']} ({difference_text(row['reached'] - row['initial'], 3)})"
        for row in rows
        if row["worse_than_initial"]
    ]
    found = [f"Worse than the base model: {listed(worse)}, nats per token."] if worse else []
    found += _overfitted(report)
    return found


def _overfitted(report: ReportData) -> list[str]:
    """Return a line on the overfitted domains, those with the largest rise first, and on what helps; or nothing."""
    train, rows = report.train, {row["domain"]: row for row in result_rows(report)}
    found = overfitted_domains(train.points, train.domain_weights)
    if not found:
        return []

    def course(name: str) -> str:
        then, row = found[name], rows[name]
        loss = f"{then.lowest_loss:.3f} at step {then.lowest_step} → {row['reached']:.3f} at the end"
        weight = f"{percent(then.lowest_weight)} → {percent(row['final_weight'])}"
        return f"{name} (loss {loss}, weight {weight}, {row['epochs']:.1f} epochs; found at step {then.step})"

    by_rise = sorted(found, key=lambda name: (found[name].lowest_loss - train.final[name], name))
    named = listed([course(name) for name in by_rise], OVERFITTED_SHOWN)
    return [f"Probably overfitted, as losses rose while weights grew: {named}. What helps: {REMEDY}."]


def cautions(report: ReportData) -> list[str]:
    """Return what should be known of the targets and the data, a line each: shown in amber."""
    flags = key_figures(report).get("flagged targets")
    lines = [f"Targets to take with caution: {flags}."] if flags else []
    return [*lines, *report.manifest.not_read()]
