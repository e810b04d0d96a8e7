"""Figures of one training run: domain weights, velocities and held-out losses over tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from velocitune_core.contracts import InitialLosses, Targets, TrainResult, overfitted_domains
from velocitune_core.style.figure import (
    INK,
    MUTED,
    OTHERS,
    SMALL_POINTS,
    TEXT_POINTS,
    TITLE_POINTS,
    WIDTH_INCHES,
    domain_colours,
    domain_dashes,
    dress,
    label,
    label_right,
    label_rows,
    largest,
    new_figure,
    notice,
    panel_title,
    panels,
    rows_height,
    token_axis,
)
from velocitune_core.style.for_pages import add_values
from velocitune_core.style.text import counted, limit_text, percent, signed, tokens_text

WEIGHTS, VELOCITY = "Domain weights over the run", "Learning velocity per domain"  # titles
_TOKENS_SEEN = "tokens seen"
LEARNT, FORGOTTEN = "#0072B2", "#D55E00"


class StepPoint(NamedTuple):
    """A logged step of a run."""

    tokens: int  # seen so far
    loss: float  # nats per token of its batch
    learning_rate: float


def weights_over_time(
    train: TrainResult, initial_domain_weights: Mapping[str, float] | None = None, title: str = WEIGHTS
) -> Figure:
    """Draw domain weights (shares of a batch) stacked over tokens, labelled with initial → final weight.

    `initial_domain_weights` are drawn before the first update, if that is later than the start. Beyond 12 domains the
    smallest are drawn as "others".
    """
    trajectory = [(point.tokens, point.weights) for point in train.domain_weights]
    if initial_domain_weights is not None and (not trajectory or trajectory[0][0] > 0):
        trajectory.insert(0, (0, dict(initial_domain_weights)))
    if not trajectory:
        return notice(title, "The run recorded no weights.")
    trajectory.append((max(train.tokens, trajectory[-1][0]), trajectory[-1][1]))
    tokens = np.array([at for at, _ in trajectory])  # (T,)
    initial, final = trajectory[0][1], trajectory[-1][1]
    shown = largest({name: max(initial[name], final[name]) for name in final})
    colours = domain_colours(final)
    bands = [
        (label(name), colours[name], initial[name], np.array([weights[name] for _, weights in trajectory]))
        for name in shown
    ]
    folded = sorted(set(final) - set(shown))
    if folded:
        rest = np.array([sum(weights[name] for name in folded) for _, weights in trajectory])
        bands.append((counted(len(folded), "other"), OTHERS, sum(initial[name] for name in folded), rest))
    bands.reverse()  # the first name on top

    figure, axes = new_figure(6.2, title, "share of every batch; labels: initial → final")
    shares = np.array([band[3] for band in bands])  # (bands, T)
    axes.stackplot(tokens, shares, colors=[band[1] for band in bands], step="post", edgecolor="white", linewidth=0.6)
    axes.set_xlim(0, max(tokens[-1], 1))
    axes.set_ylim(0, max(1.0, float(shares.sum(axis=0).max())))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_ylabel("weight (share of a batch)", fontsize=TEXT_POINTS, color=INK)
    token_axis(axes, text=_TOKENS_SEEN)
    middles = np.cumsum(shares, axis=0) - shares / 2  # (bands, T)
    for (name, colour, _, series), heights in zip(bands, middles, strict=True):
        texts = [f"{name}: {percent(float(share))} {_after(at)}" for at, share in zip(tokens, series, strict=True)]
        add_values(axes, tokens, heights, texts, colour)
    labels = [
        (float(middle), f"{name}  {percent(before)} → {percent(float(series[-1]))}", colour)
        for middle, (name, colour, before, series) in zip(middles[:, -1], bands, strict=True)
    ]
    label_right(axes, labels, gap=0.052)
    return figure


def velocity_per_domain(train: TrainResult, title: str = VELOCITY) -> Figure:
    """Draw the learning velocity per domain over tokens, or a notice where the strategy measures none."""
    measured = [(point.tokens, point.velocity) for point in train.domain_weights if point.velocity is not None]
    if not measured:
        return notice(title, f"The strategy “{train.strategy}” measures no velocity.")
    names = sorted(measured[-1][1])
    shown = largest({name: train.domain_weights[-1].weights.get(name, 0.0) for name in names})
    colours, dashes = domain_colours(names), domain_dashes(names)
    tokens = [at for at, _ in measured]
    figure, axes = new_figure(6.2, title, "1 = nothing learnt yet, 0 = at target")
    for name in (name for name in names if name not in shown):
        axes.plot(tokens, [velocity[name] for _, velocity in measured], color=OTHERS, linewidth=1)
    labels = []
    for name in reversed(shown):  # so that labels of equal values are in name order
        series = [velocity[name] for _, velocity in measured]
        axes.plot(tokens, series, color=colours[name], linestyle=dashes[name], linewidth=2.2, marker="o", markersize=4)
        texts = [f"{label(name)}: {velocity:.3f} {_after(at)}" for at, velocity in zip(tokens, series, strict=True)]
        add_values(axes, tokens, series, texts, colours[name])
        labels.append((series[-1], f"{label(name)}  {series[-1]:.2f}", colours[name]))
    if len(shown) < len(names):
        average = float(np.mean([measured[-1][1][name] for name in names if name not in shown]))
        labels.append((average, f"{counted(len(names) - len(shown), 'other')}  {average:.2f} on average", OTHERS))
    axes.set_xlim(0, max(tokens[-1], 1))
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("learning velocity", fontsize=TEXT_POINTS, color=INK)
    token_axis(axes, text=_TOKENS_SEEN)
    label_right(axes, labels, gap=0.056)
    return figure


def loss_per_domain(train: TrainResult, initial: InitialLosses, targets: Targets | None = None) -> Figure:
    """Draw held-out losses over tokens, one panel per domain, with initial and target loss as lines."""
    names, overfitted = sorted(train.final), overfitted_domains(train.points, train.domain_weights)
    colours = domain_colours(names)
    figure, grid = panels(
        len(names),
        "Held-out loss per domain",
        "each panel has its own scale; the number is the final loss",
        unit_x=_TOKENS_SEEN,
        unit_y="nats per token",
    )
    for name, axes in zip(names, grid, strict=True):
        curve = [(point.tokens, point.losses[name]) for point in train.points]
        if not curve or curve[0][0] > 0:
            curve.insert(0, (0, initial.losses[name]))
        if curve[-1][0] < train.tokens:
            curve.append((train.tokens, train.final[name]))
        tokens, losses = zip(*curve, strict=True)
        axes.axhline(initial.losses[name], color=MUTED, linestyle="--", linewidth=1.4)
        if targets is not None and name in targets.domains:
            axes.axhline(targets.domains[name].target, color=INK, linestyle=":", linewidth=2)
        axes.plot(tokens, losses, color=colours[name], linewidth=2.4)
        texts = [f"{label(name)}: {loss:.4f} nats {_after(at)}" for at, loss in curve]
        add_values(axes, tokens, losses, texts, colours[name])
        marks = ["worse"] * (train.final[name] > initial.losses[name]) + ["overfitted"] * (name in overfitted)
        ending = f"{train.final[name]:.3f}" + (f" ({', '.join(marks)})" if marks else "")
        panel_title(axes, name, ending)
        axes.set_xlim(0, max(train.tokens, 1))
        axes.margins(y=0.1)
        token_axis(axes)
    key = [Line2D([], [], color=MUTED, linestyle="--", linewidth=1.4, label="initial loss")]
    if targets is not None:
        key.append(Line2D([], [], color=INK, linestyle=":", linewidth=2, label="target loss"))
    figure.legend(handles=key, loc="outside lower right", ncols=2, fontsize=SMALL_POINTS, frameon=False)
    return figure


def training_curve(steps: Sequence[StepPoint]) -> Figure:
    """Draw the loss of the batches and the learning rate over tokens, of the steps that were logged."""
    title = "Training loss and learning rate"
    if not steps:
        return notice(title, "The steps of the run are not recorded here.")
    figure = Figure(figsize=(WIDTH_INCHES, 4.2), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    tokens = [each.tokens for each in steps]
    parts = (
        ("training loss", "nats per token of the batch", [each.loss for each in steps], "{:.4f} nats", "#0072B2"),
        ("learning rate", "", [each.learning_rate for each in steps], "{:.3g}", "#D55E00"),
    )
    for axes, (name, unit, values, form, colour) in zip(figure.subplots(1, 2, sharex=True), parts, strict=True):
        dress(axes, SMALL_POINTS)
        axes.plot(tokens, values, color=colour, linewidth=1.8)
        texts = [f"{name}: {form.format(value)} {_after(at)}" for at, value in zip(tokens, values, strict=True)]
        add_values(axes, tokens, values, texts, colour)
        axes.set_title(f"{name}, {unit}" if unit else name, loc="left", fontsize=SMALL_POINTS, color=INK)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        token_axis(axes, text=_TOKENS_SEEN, points=SMALL_POINTS)
    figure.axes[1].set_ylim(bottom=0)
    return figure


def change_per_domain(train: TrainResult, initial: InitialLosses, targets: Targets | None = None) -> Figure:
    """Draw by how much the held-out loss of each domain changed, largest gain first, and its target as a diamond."""
    changes = {name: loss - initial.losses[name] for name, loss in train.final.items()}
    names = sorted(changes, key=lambda name: (changes[name], name))
    figure, axes = new_figure(
        rows_height(len(names)), "What each domain learnt", "change of the held-out loss, nats per token"
    )
    for row, name in enumerate(names):
        colour = LEARNT if changes[name] <= 0 else FORGOTTEN
        axes.barh(row, changes[name], height=0.62, color=colour)
        ends = f"{initial.losses[name]:.3f} → {train.final[name]:.3f} nats ({signed(changes[name], 3)})"
        add_values(axes, [changes[name]], [row], [f"{label(name)}: {ends}"], colour)
        if targets is not None and name in targets.domains:
            target = targets.domains[name].target
            axes.plot(target - initial.losses[name], row, "D", color="white", markeredgecolor=INK, markersize=7)
            add_values(axes, [target - initial.losses[name]], [row], [f"{label(name)}: target {target:.3f} nats"], INK)
    axes.axvline(0, color=INK, linewidth=1)
    label_rows(axes, names)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(limit_text))
    if targets is not None:
        target = Line2D([], [], marker="D", markerfacecolor="white", markeredgecolor=INK, linestyle="none")
        target.set_label("target")
        bars = [Patch(color=LEARNT, label="learnt"), Patch(color=FORGOTTEN, label="worse than the base model")]
        figure.legend(handles=[*bars, target], loc="outside upper right", ncols=3, fontsize=SMALL_POINTS, frameon=False)
    return figure


def _after(tokens: float) -> str:
    return f"after {tokens_text(tokens, 4)} tokens" if tokens else "at the start"
