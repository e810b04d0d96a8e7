"""Figures of shades as tables for pages: numbers that can be read on a phone and scrolled."""

from __future__ import annotations

import numpy as np

from velocitune_core.comparison.metrics import domains
from velocitune_core.comparison.statistics import ComparisonSummary
from velocitune_core.comparison.tables import MISSING, estimate_text
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.report.html import ShadedCell, ShadedRow
from velocitune_core.report.plan_data import exchange_rates
from velocitune_core.style.text import signed


def shades_of_differences(summary: ComparisonSummary) -> list[ShadedRow]:
    """Return final loss minus the baseline's per domain, mean over pairs, a row per label; none for the baseline."""
    names = domains(summary.comparison)
    others = [each for each in summary.strategies.values() if each is not summary.baseline]
    found = [cell.mean for each in others for cell in each.loss_differences.values() if cell is not None]
    largest = max(map(abs, found), default=0.0) or 1.0
    rows = []
    for each in others:
        cells = []
        for name in names:
            cell = each.loss_differences[name]
            if cell is None:
                cells.append(ShadedCell(MISSING, 0.0))
                continue
            title = f"{each.label}, {name}: {estimate_text(cell, 'nats', sign=True)} nats"
            cells.append(ShadedCell(signed(cell.mean, 3), cell.mean / largest, title, bool(cell.sign)))
        rows.append(ShadedRow(each.label, names, cells))
    return rows


def shades_of_rates(fitted: FittedPlan) -> list[ShadedRow]:
    """Return the exchange rates of a law, each row relative to its best teacher; not determined: in parentheses."""
    law, rates = fitted.law, exchange_rates(fitted.law)
    values = np.array(rates["values"])  # (I, K)
    shares = values / np.maximum(values.max(axis=1, keepdims=True), 1e-12)
    known = np.ones(shares.shape, dtype=bool) if rates["known"] is None else np.array(rates["known"])
    rows = []
    for i, name in enumerate(law.sets):
        cells = [
            ShadedCell(
                f"{share:.2f}" if sure else f"({share:.2f})",
                -float(share) if sure else -0.25 * float(share),
                f"{domain} → {name}: {values[i, j]:.3g}{'' if sure else ', not determined by the runs'}",
            )
            for j, (domain, share, sure) in enumerate(zip(law.domains, shares[i], known[i], strict=True))
        ]
        rows.append(ShadedRow(name, list(law.domains), cells))
    return rows
