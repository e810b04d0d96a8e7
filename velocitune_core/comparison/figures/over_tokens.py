"""Figures over tokens: losses and domain weights, mean over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from velocitune_core.comparison.figures.strategy_style import NAME_LENGTH, StrategyStyle, strategy_styles
from velocitune_core.comparison.metrics import domains, loss_curve, retained, runs_of
from velocitune_core.comparison.statistics import ComparisonSummary, StrategySummary, estimate
from velocitune_core.style.figure import (
    INK,
    MUTED,
    OTHERS,
    SMALL_POINTS,
    TEXT_POINTS,
    TITLE_POINTS,
    WIDTH_INCHES,
    domain_colours,
    dress,
    label,
    label_right,
    largest,
    new_figure,
    notice,
    panels,
    token_axis,
)
from velocitune_core.style.for_pages import add_values
from velocitune_core.style.text import counted, listed, percent, signed, tokens_text

_TOKENS_SEEN = "tokens seen"
_START_SHARE = 0.2  # of the tokens: the warm-up, whose differences may exceed the panel
_Curves = Mapping[int, NDArray[np.float64]]  # seed → (T,)


def macro_average_over_tokens(summary: ComparisonSummary) -> Figure:
    """Draw the macro-average loss, and below it the difference to the baseline of the same seed at the same tokens."""
    names = domains(summary.comparison)
    tokens = _token_grid(summary)
    curves = {name: _curves(summary, name, names, tokens) for name in summary.strategies}
    baseline = curves[summary.baseline.label]
    differences = {
        name: {seed: curve - baseline[seed] for seed, curve in each.items() if seed in baseline}
        for name, each in curves.items()
    }
    figure = Figure(figsize=(WIDTH_INCHES, _height(summary) + 2.6), layout="constrained", facecolor="white")
    figure.suptitle(
        "Macro-average loss over tokens", x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK
    )
    whole, difference = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, _height(summary) - 0.4))
    for axes, unit in ((whole, "nats per token"), (difference, f"nats, minus {label(summary.baseline.label)}")):
        dress(axes)
        axes.set_ylabel(unit, fontsize=TEXT_POINTS, color=INK)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    _lines(whole, summary, tokens, curves, bands=False)
    ends = _lines(difference, summary, tokens, differences, bands=True)
    axes_end = max(tokens[-1], 1.0)
    whole.set_xlim(0, axes_end)
    _limit_to_late_differences(difference, tokens, differences)
    token_axis(difference, text=_TOKENS_SEEN)
    _label_lines(difference, summary, ends, _height(summary) - 0.4)
    return figure


def retention_over_tokens(summary: ComparisonSummary) -> Figure:
    """Draw the loss of the retained domains minus the base model's; above zero the model has forgotten."""
    title, names = "Retention over tokens", retained(summary.comparison)
    if not names:
        return notice(title, "The comparison has no retained domain.")
    tokens = _token_grid(summary)
    curves = {
        strategy: {seed: curve - curve[0] for seed, curve in _curves(summary, strategy, names, tokens).items()}
        for strategy in summary.strategies
    }
    subtitle = f"loss of {label(listed(names), 40)} minus the base model's; above 0: forgetting"
    figure, axes = new_figure(_height(summary) + 0.8, title, subtitle)
    axes.axhline(0, color=MUTED, linewidth=1.4, linestyle="--")
    ends = _lines(axes, summary, tokens, curves, bands=True)
    axes.set_xlim(0, max(tokens[-1], 1.0))
    axes.set_ylabel("nats per token", fontsize=TEXT_POINTS, color=INK)
    token_axis(axes, text=_TOKENS_SEEN)
    _label_lines(axes, summary, ends, _height(summary) - 0.9)
    return figure


def weights_by_strategy(summary: ComparisonSummary) -> Figure:
    """Draw domain weights stacked over tokens, mean over seeds, a panel per strategy whose weights changed."""
    title = "Domain weights over tokens"
    moving = [strategy for strategy in summary.strategies.values() if strategy.dynamic]
    if not moving:
        return notice(
            title,
            "No strategy changed its weights during its run; the figure of mean mixtures has them.",
        )
    names = domains(summary.comparison)
    figure, grid = panels(
        len(moving), title, "share of every batch, mean over seeds", unit_x=_TOKENS_SEEN, unit_y="weight"
    )
    trajectories = [_mean_weights(summary, strategy) for strategy in moving]
    highest = {name: max(float(weights[name].max()) for _, weights in trajectories) for name in names}
    shown, colours = largest(highest), domain_colours(names)
    folded = [name for name in names if name not in shown]
    for axes, strategy, (tokens, weights) in zip(grid, moving, trajectories, strict=True):
        bands = [weights[name] for name in shown]
        bands += [np.sum([weights[name] for name in folded], axis=0)] if folded else []
        fills = [colours[name] for name in shown] + [OTHERS] * bool(folded)
        axes.stackplot(tokens, bands[::-1], colors=fills[::-1], step="post", edgecolor="white", linewidth=0.4)
        middles = np.cumsum(bands[::-1], axis=0)[::-1] - np.array(bands) / 2  # (bands, T)
        for name, colour, band, heights in zip([*shown, "others"][: len(bands)], fills, bands, middles, strict=True):
            texts = [
                f"{name}: {percent(share)} after {tokens_text(at, 4)} tokens"
                for at, share in zip(tokens, band, strict=True)
            ]
            add_values(axes, tokens, heights, texts, colour)
        axes.set_title(
            label(strategy.label, 26 if len(moving) <= 9 else 18), loc="left", fontsize=SMALL_POINTS, color=INK
        )
        axes.set(xlim=(0, max(tokens[-1], 1.0)), ylim=(0, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        token_axis(axes)
    key = [Patch(color=colours[name], label=label(name, 16)) for name in shown]
    key += [Patch(color=OTHERS, label=counted(len(folded), "other"))] if folded else []
    figure.legend(handles=key, loc="outside lower right", ncols=min(4, len(key)), fontsize=SMALL_POINTS, frameon=False)
    return figure


def _height(summary: ComparisonSummary) -> float:
    """Return the height in inches of a panel whose lines are labelled at its right."""
    return max(4.4, 0.32 * len(summary.strategies) + 0.8)


def _token_grid(summary: ComparisonSummary) -> NDArray[np.float64]:
    """Return all tokens at which any run was evaluated, from 0 to the end, (T,)."""
    comparison = summary.comparison
    return np.unique(np.concatenate([loss_curve(comparison, run, domains(comparison))[0] for run in comparison.runs]))


def _curves(
    summary: ComparisonSummary, name: str, over: Sequence[str], tokens: NDArray[np.float64]
) -> dict[int, NDArray[np.float64]]:
    """Return the mean loss of a strategy over the domains `over` at `tokens` (T,), by seed."""
    runs = runs_of(summary.comparison, name)
    return {seed: np.interp(tokens, *loss_curve(summary.comparison, run, over)) for seed, run in runs.items()}


def _lines(
    axes: Axes,
    summary: ComparisonSummary,
    tokens: NDArray[np.float64],
    curves: Mapping[str, _Curves],
    *,
    bands: bool,
) -> dict[str, float]:
    """Draw a line per strategy, and its 95 % interval unless it is a constant mixture; return the last values."""
    ends = {}
    for name, style in strategy_styles(summary).items():
        found = list(curves[name].values())
        if not found:
            continue
        estimates = [estimate(column) for column in np.array(found).T]
        means = np.array([each.mean for each in estimates if each is not None])
        half_widths = np.array([each.half_width or 0.0 for each in estimates if each is not None])
        _line(axes, tokens, means, style)
        texts = [
            f"{name}: {signed(each.mean, 4) if bands else f'{each.mean:.4f}'}"
            f"{f' ± {each.half_width:.4f}' if each.half_width else ''} nats after {tokens_text(at, 4)} tokens"
            for at, each in zip(tokens, estimates, strict=True)
            if each is not None
        ]
        add_values(axes, tokens, means.tolist(), texts, style.colour)
        if bands and not style.constant:
            axes.fill_between(
                tokens, means - half_widths, means + half_widths, color=style.colour, alpha=0.13, linewidth=0
            )
        ends[name] = float(means[-1])
    return ends


def _line(axes: Axes, tokens: NDArray[np.float64], means: NDArray[np.float64], style: StrategyStyle) -> None:
    width, order = (1.8, 2) if style.constant else (2.2, 3)
    axes.plot(tokens, means, color=style.colour, linestyle=style.dashes, linewidth=width, zorder=order)


def _limit_to_late_differences(axes: Axes, tokens: NDArray[np.float64], differences: Mapping[str, _Curves]) -> None:
    """Set the y limits by the differences after the warm-up."""
    late = tokens >= _START_SHARE * tokens[-1]
    means = [np.mean(list(each.values()), axis=0)[late] for each in differences.values() if each]
    low, high = float(np.min(means)), float(np.max(means))
    room = 0.25 * (high - low) or 0.01
    axes.set_ylim(low - room, high + room)


def _label_lines(axes: Axes, summary: ComparisonSummary, ends: Mapping[str, float], height: float) -> None:
    styles, (low, high) = strategy_styles(summary), axes.get_ylim()
    labels = [(end, label(name, NAME_LENGTH), styles[name].colour) for name, end in ends.items()]
    label_right(axes, labels, gap=0.27 * (high - low) / height)


def _mean_weights(
    summary: ComparisonSummary, strategy: StrategySummary
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Return tokens (T,) and the domain weights from there on (T,), by domain."""
    results = [run.result for run in runs_of(summary.comparison, strategy.label).values() if run.result.domain_weights]
    at = {result.tokens for result in results} | {point.tokens for result in results for point in result.domain_weights}
    tokens = np.array(sorted(at), float)
    names = domains(summary.comparison)
    weights = np.zeros((len(names), tokens.size))
    for result in results:
        recorded = [point.tokens for point in result.domain_weights]
        index = np.maximum(np.searchsorted(recorded, tokens, side="right") - 1, 0)
        trajectory = np.array(
            [[point.weights[name] for point in result.domain_weights] for name in names]
        )  # (K, points)
        weights += trajectory[:, index] / len(results)
    return tokens, dict(zip(names, weights, strict=True))
