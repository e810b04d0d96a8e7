"""Figures of the cost: tokens per domain, and seconds and tokens by kind of work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from velocitune_core.contracts import InitialLosses, Manifest, ProxyResult, StartingWeights, TrainResult
from velocitune_core.style.figure import (
    INK,
    MUTED,
    TEXT_POINTS,
    TITLE_POINTS,
    WIDTH_INCHES,
    domain_colours,
    dress,
    label_rows,
    new_figure,
    rows_height,
    token_axis,
)
from velocitune_core.style.for_pages import add_values
from velocitune_core.style.text import counted, percent, tokens_text

SMALLEST_REST = 0.005  # of the wall time: a smaller one has no row


class CostRow(NamedTuple):
    """One kind of work; `tokens` is None where no tokens are read."""

    name: str
    seconds: float
    tokens: int | None
    in_training: bool  # part of the training run's wall time


def cost_rows(
    train: TrainResult,
    proxies: Sequence[ProxyResult] = (),
    base: TrainResult | None = None,
    initial: InitialLosses | None = None,
    weights: StartingWeights | None = None,
) -> list[CostRow]:
    """Return seconds and tokens of each kind of work; the rows in the training run add up to its wall time.

    `initial` gives the tokens of one evaluation, without which those of the training run's evaluations are unknown.
    """
    rows = []
    if base is not None:
        rows.append(CostRow("base model", base.seconds.total, base.tokens, False))
    if initial is not None:
        rows.append(CostRow("initial losses", initial.seconds, sum(initial.tokens.values()), False))
    if proxies:
        tokens = sum(proxy.tokens for proxy in proxies)
        rows.append(CostRow(_runs("proxies", len(proxies)), sum(proxy.seconds for proxy in proxies), tokens, False))
    if weights is not None and (runs := weights.own_runs):
        name = "swarm" if weights.planned else "search"
        seconds, tokens = sum(run.seconds for run in runs), sum(run.tokens for run in runs)
        rows.append(CostRow(_runs(name, len(runs)), seconds, tokens, False))
    spent = train.seconds
    evaluated = sum(initial.tokens.values()) * len(train.points) if initial is not None else None
    rows += [
        CostRow("training steps", spent.training, train.tokens, True),
        CostRow("evaluation", spent.evaluation, evaluated, True),
        CostRow("reweighting", spent.reweighting, None, True),
        CostRow("sampling", spent.sampling, None, True),
        CostRow("checkpoints", spent.checkpointing, None, True),
    ]
    rest = spent.total - sum(row.seconds for row in rows if row.in_training)
    if rest > SMALLEST_REST * spent.total:
        rows.append(CostRow("start-up and rest", rest, None, True))  # loading the model, compiling, logging
    return rows


def _runs(name: str, count: int) -> str:
    return f"{name} ({counted(count, 'run')})"


def time_and_tokens_spent(
    train: TrainResult,
    proxies: Sequence[ProxyResult] = (),
    base: TrainResult | None = None,
    initial: InitialLosses | None = None,
    weights: StartingWeights | None = None,
) -> Figure:
    """Draw seconds and tokens by kind of work as horizontal bars (see `cost_rows`)."""
    rows = cost_rows(train, proxies, base, initial, weights)
    figure = Figure(figsize=(WIDTH_INCHES, rows_height(len(rows)) + 0.2), layout="constrained", facecolor="white")
    figure.suptitle("Time and tokens spent", x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    seconds, tokens = figure.subplots(1, 2, sharey=True)
    for axes in (seconds, tokens):
        dress(axes)
        label_rows(axes, [row.name for row in rows])
        axes.margins(x=0.25)
    for index, row in enumerate(rows):
        colour = "#0072B2" if row.in_training else "#E69F00"
        _bar(
            seconds,
            index,
            row.seconds,
            colour,
            f"{row.seconds:,.0f} s" if row.seconds >= 10 else f"{row.seconds:.1f} s",
        )
        _bar(tokens, index, row.tokens or 0, colour, "–" if row.tokens is None else tokens_text(row.tokens))
        share = f", {percent(row.seconds / train.seconds.total)} of the run's" if train.seconds.total else ""
        add_values(seconds, [row.seconds], [index], [f"{row.name}: {row.seconds:,.1f} s{share}"], colour)
        if row.tokens is not None:
            add_values(tokens, [row.tokens], [index], [f"{row.name}: {row.tokens:,} tokens"], colour)
    seconds.set_xlabel("seconds", fontsize=TEXT_POINTS, color=INK)
    token_axis(tokens, text="tokens")
    seconds.set_title("blue: in the training run", loc="left", fontsize=TEXT_POINTS, color=MUTED)
    tokens.set_title("orange: before it", loc="left", fontsize=TEXT_POINTS, color=MUTED)
    return figure


def tokens_and_epochs(train: TrainResult, manifest: Manifest) -> Figure:
    """Draw the tokens seen per domain against the tokens of one epoch, with the number of epochs."""
    names = sorted(train.tokens_per_domain)
    colours = domain_colours(names)
    figure, axes = new_figure(
        rows_height(len(names)), "Tokens and epochs per domain", "filled: tokens seen; outline: one epoch of the domain"
    )
    for row, name in enumerate(names):
        seen, epoch = train.tokens_per_domain[name], manifest.domains[name].train.tokens
        axes.barh(row, seen, height=0.5, color=colours[name])
        axes.barh(row, epoch, height=0.74, fill=False, edgecolor=INK, linewidth=1.4)
        text = f"{tokens_text(seen)}, {train.epochs_per_domain[name]:.2f} epochs"
        exact = f"{name}: {seen:,} tokens seen, {train.epochs_per_domain[name]:.3f} epochs of {epoch:,}"
        add_values(axes, [seen], [row], [exact], colours[name])
        _write(axes, row, max(seen, epoch), text)
    label_rows(axes, names)
    axes.margins(x=0.22)
    token_axis(axes, text="tokens")
    return figure


def _bar(axes: Axes, row: int, length: float, colour: str, text: str) -> None:
    axes.barh(row, length, height=0.6, color=colour)
    _write(axes, row, length, text)


def _write(axes: Axes, row: int, x: float, text: str) -> None:
    axes.annotate(
        text, (x, row), (6, 0), textcoords="offset points", va="center", fontsize=TEXT_POINTS, color=INK, clip_on=False
    )
