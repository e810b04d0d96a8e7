"""Figures of the targets: the law of each, and target against final loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from velocitune_core.contracts import DomainTarget, Evidence, Law, ProxyResult, Targets, TrainResult
from velocitune_core.scaling_law import power_law
from velocitune_core.style.figure import (
    CAUTION,
    INK,
    MUTED,
    SMALL_POINTS,
    TEXT_POINTS,
    TITLE_POINTS,
    WARNING,
    WIDTH_INCHES,
    domain_colours,
    dress,
    label_rows,
    notice,
    panel_title,
    panels,
    rows_height,
    token_axis,
)
from velocitune_core.style.for_pages import add_values
from velocitune_core.style.text import signed, tokens_text

ALARMING_FLAG = "not_decreasing"  # the others say that evidence is thin, or that there is no gap to close


def laws(targets: Targets, proxies: Sequence[ProxyResult] = (), reached: Mapping[str, float] | None = None) -> Figure:
    """Draw, per domain, the fitted points, the law, the target at the token budget with its interval, and flags.

    A law that `targets.law: auto` did not choose is dotted; intermediate evaluations of `proxies` are drawn faint.
    `reached` are final losses by domain (nats per token), drawn as crosses at the budget.
    """
    title, names = "Scaling law and target per domain", sorted(targets.domains)
    if all(domain.evidence is None for domain in targets.domains.values()):
        return notice(title, "The targets were written by hand, so there is no law to show.")
    colours = domain_colours(names)
    interval = f"{targets.level * 100:g} % interval" if targets.level is not None else "interval"
    figure, grid = panels(
        len(names),
        title,
        "loss against tokens of the whole mixture; dashed where the law is extrapolated",
        unit_x="tokens of the whole mixture",
        unit_y="nats per token",
    )
    for name, axes in zip(names, grid, strict=True):
        domain = targets.domains[name]
        panel_title(axes, name, f"{domain.target:.3f}")
        if domain.evidence is None:
            _by_hand(axes, domain.target, targets.token_budget)
        else:
            _law(axes, domain, domain.evidence, targets.token_budget, colours[name])
            _law_values(axes, name, domain, domain.evidence, targets.token_budget, colours[name])
            for tokens, loss in _intermediate(name, proxies, domain.evidence):
                axes.plot(tokens, loss, marker="o", color=colours[name], alpha=0.35, markersize=4, linestyle="none")
                _value(axes, name, "along a proxy", tokens, loss, colours[name])
        if reached is not None and targets.token_budget is not None:
            axes.plot(targets.token_budget, reached[name], marker="x", color=INK, markersize=8, markeredgewidth=2)
            _value(axes, name, "reached", targets.token_budget, reached[name], INK)
        _write_flags(axes, domain)
        axes.margins(x=0.08, y=0.15)
        _keep_points_apart(axes, domain, [] if reached is None else [reached[name]])
        token_axis(axes)
    key = [
        Line2D([], [], color=MUTED, marker="o", linestyle="none", markersize=7, label="proxy"),
        Line2D([], [], color=MUTED, marker="D", linestyle="none", markersize=7, label=f"target, {interval}"),
    ]
    if any(domain.evidence and domain.evidence.other_law for domain in targets.domains.values()):
        key.append(Line2D([], [], color=MUTED, linestyle=":", linewidth=1.5, label="the law not chosen"))
    if reached is not None and targets.token_budget is not None:
        key.append(Line2D([], [], color=INK, marker="x", linestyle="none", markersize=8, label="reached"))
    columns = len(key) if len(key) < 4 else 2  # four in a row overlap the axis label on their left
    figure.legend(handles=key, loc="outside lower right", ncols=columns, fontsize=SMALL_POINTS, frameon=False)
    return figure


def _by_hand(axes: Axes, target: float, token_budget: int | None) -> None:
    axes.axhline(target, color=INK, linestyle=":", linewidth=2)
    axes.text(0.03, 0.1, "written by hand", transform=axes.transAxes, fontsize=SMALL_POINTS, color=MUTED)
    axes.plot(token_budget or 0, target, alpha=0)  # extends the shared x axis to the budget


def _law(axes: Axes, domain: DomainTarget, evidence: Evidence, token_budget: int | None, colour: str) -> None:
    smallest_point, largest_point = min(evidence.tokens), max(evidence.tokens)
    end = token_budget or largest_point
    if evidence.other_law is not None:
        tokens = np.linspace(smallest_point, end, 100)
        axes.plot(tokens, _losses(evidence.other_law.law, tokens), color=MUTED, linestyle=":", linewidth=1.5)
    for start, stop, style in ((smallest_point, largest_point, "-"), (largest_point, end, "--")):
        tokens = np.linspace(start, stop, 100)
        axes.plot(tokens, _losses(evidence.law, tokens), color=colour, linestyle=style, linewidth=2)
    if evidence.law.kind != "chinchilla":
        axes.text(0.03, 0.05, evidence.law.kind, transform=axes.transAxes, fontsize=SMALL_POINTS, color=MUTED)
    axes.plot(evidence.tokens, evidence.losses, marker="o", color=colour, markersize=7, linestyle="none")
    if evidence.interval is not None:
        low, high = evidence.interval
        axes.plot([end, end], [low, high], color=colour, linewidth=2, marker="_", markersize=12, markeredgewidth=2)
    axes.plot(end, domain.target, marker="D", color=colour, markeredgecolor="white", markersize=9)


def _law_values(
    axes: Axes, name: str, domain: DomainTarget, evidence: Evidence, token_budget: int | None, colour: str
) -> None:
    for tokens, loss in zip(evidence.tokens, evidence.losses, strict=True):
        _value(axes, name, "proxy", tokens, loss, colour)
    interval = "" if evidence.interval is None else ", {:.3f} … {:.3f}".format(*evidence.interval)
    _value(axes, name, "target", token_budget or max(evidence.tokens), domain.target, colour, interval)


def _value(axes: Axes, name: str, what: str, tokens: float, loss: float, colour: str, more: str = "") -> None:
    text = f"{name}, {what}: {loss:.4f} nats{more} at {tokens_text(tokens, 4)} tokens"
    add_values(axes, [tokens], [loss], [text], colour)


def _losses(law: Law, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    return power_law(tokens, law.E, law.B, law.beta, law.D0)


def _keep_points_apart(axes: Axes, domain: DomainTarget, reached: list[float]) -> None:
    """Limit the y axis to the points, so that a very wide interval does not compress them."""
    if domain.evidence is None:
        return
    losses = [domain.target, *domain.evidence.losses, *reached]
    room = 1.5 * (max(losses) - min(losses)) or 0.05 * domain.target
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, min(losses) - room), min(high, max(losses) + room))


def _intermediate(name: str, proxies: Sequence[ProxyResult], evidence: Evidence) -> list[tuple[int, float]]:
    """Return evaluations that were not used in the fit and are not left of its first point."""
    used, start = set(evidence.tokens), min(evidence.tokens)
    points = [point for proxy in proxies for point in proxy.points]
    return [(point.tokens, point.losses[name]) for point in points if point.tokens not in used and point.tokens > start]


def _write_flags(axes: Axes, domain: DomainTarget) -> None:
    """Write the flags between title and panel, where no point of the law can be."""
    if not domain.flags:
        return
    lines = wrap(", ".join(flag.replace("_", " ") for flag in domain.flags), 28)
    pad = 8 + 1.3 * SMALL_POINTS * len(lines)
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=SMALL_POINTS, color=INK, pad=pad)
    axes.annotate(
        "\n".join(lines),
        (0, 1),
        (0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=SMALL_POINTS - 1,
        color=WARNING if ALARMING_FLAG in domain.flags else CAUTION,
    )


def predicted_against_reached(targets: Targets, train: TrainResult) -> Figure:
    """Draw target and final loss per domain, and beside them the target's error relative to the final loss.

    The error is (target − reached) / reached: positive where training went below the target.
    """
    title = "Predicted and reached loss per domain"
    names = [name for name in sorted(targets.domains) if name in train.final]
    if not names:
        return notice(title, "Targets and training run have no domain in common.")
    colours = domain_colours(targets.domains)
    figure = Figure(figsize=(WIDTH_INCHES, rows_height(len(names)) + 0.6), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    losses, errors = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for axes in (losses, errors):
        dress(axes)
        label_rows(axes, names)
    for row, name in enumerate(names):
        target, reached, colour = targets.domains[name].target, train.final[name], colours[name]
        losses.plot([target, reached], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
        losses.plot(reached, row, marker="o", color=colour, markersize=10)
        losses.plot(target, row, marker="D", markerfacecolor="white", markeredgecolor=INK, markersize=7, linewidth=0)
        error = (target - reached) / reached * 100
        texts = [f"{name}: target {target:.4f} nats", f"{name}: reached {reached:.4f} nats"]
        add_values(losses, [target, reached], [row, row], texts, colour)
        add_values(errors, [error], [row], [f"{name}: target {signed(error, 2)} % of what was reached"], colour)
        errors.barh(row, error, height=0.6, color=colour)
        errors.annotate(
            f"{signed(error, 1)} %",
            (error, row),
            (6 if error >= 0 else -6, 0),
            textcoords="offset points",
            ha="left" if error >= 0 else "right",
            va="center",
            fontsize=TEXT_POINTS,
            color=INK,
        )
    _room_for_numbers(errors)
    losses.xaxis.set_major_locator(MaxNLocator(6))
    losses.set_xlabel("nats per token", fontsize=TEXT_POINTS, color=INK)
    errors.set_xlabel("target relative to reached, percent", fontsize=TEXT_POINTS, color=INK)
    losses.set_title("held-out loss", loc="left", fontsize=TEXT_POINTS, color=MUTED)
    errors.set_title("right: target too easy; left: not reached", loc="left", fontsize=TEXT_POINTS, color=MUTED)
    key = [
        Line2D([], [], marker="D", markerfacecolor="white", markeredgecolor=INK, linestyle="none", label="target"),
        Line2D([], [], marker="o", color=MUTED, markersize=9, linestyle="none", label="reached"),
    ]
    figure.legend(handles=key, loc="outside upper right", ncols=2, fontsize=TEXT_POINTS, frameon=False)
    return figure


def _room_for_numbers(errors: Axes) -> None:
    """Widen the axis on the sides that have bars, to fit the numbers at their ends."""
    errors.axvline(0, color=MUTED, linewidth=1)
    low, high = (min(errors.dataLim.x0, 0.0), max(errors.dataLim.x1, 0.0))
    span = (high - low) or 1.0
    errors.set_xlim(low - span * (0.5 if low < 0 else 0.02), high + span * (0.4 if high > 0 else 0.5))
    errors.xaxis.set_major_locator(MaxNLocator(4))
