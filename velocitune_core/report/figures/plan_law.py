"""Figures of the law behind a plan: trade-off curves, which domain teaches which set, and its error on runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from velocitune_core.mixture_law.mixture_plan import MixturePlan
from velocitune_core.mixture_law.named_guard import NamedGuard
from velocitune_core.mixture_law.references import STATIC, UNIFORM
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.report.plan_data import exchange_rates
from velocitune_core.style.figure import (
    INK,
    MUTED,
    SMALL_POINTS,
    TEXT_POINTS,
    TITLE_POINTS,
    WIDTH_INCHES,
    dress,
    label,
    notice,
    rows_height,
)
from velocitune_core.style.for_pages import SUBTITLE, add_values
from velocitune_core.style.text import limit_text, signed

PLAN_COLOUR, REACHED_COLOUR = "#0072B2", "#D55E00"
PANELS_AT_MOST = 12
CURVES_IN_A_ROW = 3
NUMBERS_AT_MOST = 14  # domains whose rates are also written as numbers


def trade_off_curves(fitted: FittedPlan, reached: Mapping[str, float] | None = None) -> Figure:
    """Draw the best mixture at each limit of a guard, with the mixtures that cost no search and the plan on it.

    Args:
        reached: losses of the run under the planned weights by set; drawn as differences to the predicted losses of
            static training, but not where a set counts that has no target, whose prediction is not at the level of a
            whole run.
    """
    title, curves = "What the guards cost", [guard for guard, points in fitted.curves.items() if points]
    if not curves:
        return notice(title, "The objective has no initial weights, or no mixture keeps a limit of its guards.")
    columns, compared, limits = min(len(curves), CURVES_IN_A_ROW), reached_in(fitted, reached), limits_of(fitted)
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(WIDTH_INCHES, 1.2 + 4.4 * rows), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    static = {name: each.value for name, each in fitted.plan.mixtures[fitted.plan.baseline].losses.items()}
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes in grid[len(curves) :]:
        axes.remove()
    for axes, guard in zip(grid, curves, strict=False):
        dress(axes, SMALL_POINTS)
        draw_curve(axes, fitted, guard)
        for name, style in _reference_styles(fitted).items():
            losses = {each: one.value for each, one in fitted.plan.mixtures[name].losses.items()}
            _mark(axes, fitted.place(guard, losses, static), *style, name=name)
        if reached is not None and guard in compared:
            place = fitted.place(guard, {name: reached[name] for name in static}, static)
            _mark(axes, place, "D", REACHED_COLOUR, 8, name="reached")
        label_plane(axes, guard, fitted.plan.average, fitted.plan.baseline)
        if guard in limits:
            axes.axvline(limits[guard], color=MUTED, linestyle=":", linewidth=1.5)
    figure.axes[0].set_title("better: down and left", loc="left", fontsize=TEXT_POINTS, color=MUTED)
    _legend(figure, fitted, bool(compared))
    return figure


def reached_in(fitted: FittedPlan, reached: Mapping[str, float] | None) -> list[str]:
    """Return the guards in whose panels what a run reached is drawn."""
    if reached is None:
        return []
    return [guard for guard, points in fitted.curves.items() if points and fitted.is_comparable(guard)]


def limits_of(fitted: FittedPlan) -> dict[str, float]:
    """Return the limits that the objective has, by the guards with a panel."""
    limits = {guard: NamedGuard.of(guard).limit(fitted.objective) for guard, points in fitted.curves.items() if points}
    return {guard: limit for guard, limit in limits.items() if limit is not None}


def cheap_beside(plan: MixturePlan) -> str | None:
    """Return the best mixture that costs no search, if it is drawn beside what a plan predicts."""
    cheap = None if plan.most is None else plan.most.reference
    return None if cheap == plan.baseline else cheap


def draw_curve(axes: Axes, fitted: FittedPlan, guard: str) -> None:
    """Draw the curve of a guard: what it reaches against the average's difference to static, by the law."""
    static = {name: each.value for name, each in fitted.plan.mixtures[fitted.plan.baseline].losses.items()}
    places = []
    for point in fitted.curves[guard]:
        losses = {name: float(loss) for name, loss in fitted.law.predict(point.weights).items()}
        places.append(fitted.place(guard, losses, static))
    axes.plot(*np.array(places).T, color=PLAN_COLOUR, linewidth=2.2, zorder=2)


def label_plane(axes: Axes, guard: str, average: str, baseline: str, *, every: bool = False) -> None:
    """Label the axes of a plane, y only in the first column unless `every`, and draw the baseline's average."""
    named = NamedGuard.of(guard)
    to = "to the initial model" if named.kind == "forgetting" else f"to {label(baseline)}"
    axes.set_xlabel(f"{label(named.title, 30)}, {to}\nnats per token", fontsize=SMALL_POINTS, color=INK)
    if every or axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
        axes.set_ylabel(f"{label(average)}, to {label(baseline)}, nats per token", fontsize=SMALL_POINTS, color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(limit_text))
    axes.axhline(0, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
    axes.margins(0.08)


def plane_text(name: str, place: tuple[float, float]) -> str:
    """Return what is shown at a mark of a plane: its name, and the difference across and up."""
    across, up = (signed(each, 4) for each in place)
    return f"{name}: {across} across, {up} up, nats"


def _reference_styles(fitted: FittedPlan) -> dict[str, tuple[str, str, float]]:
    """Return marker, colour and size by name of a mixture; greys are the stronger, the more even it is."""
    plan = fitted.plan
    found = {"without guards": ("o", "white", 8.0)} if any(each.kind != "runs" for each in plan.limits) else {}
    even = [name for name in plan.mixtures if name in {STATIC, UNIFORM} or name.startswith("T = ")]
    for rank, name in enumerate(even):
        grey = round(255 * (0.76 - 0.46 * rank / max(len(even) - 1, 1)))
        found[name] = ("s", "#" + f"{grey:02x}" * 3, 7.0)
    return found | {"recommended": ("o", PLAN_COLOUR, 10.0)}


def _mark(axes: Axes, place: tuple[float, float], marker: str, colour: str, size: float, *, name: str) -> None:
    shown = PLAN_COLOUR if colour == "white" else colour
    add_values(axes, [place[0]], [place[1]], [plane_text(name, place)], shown)
    edge = PLAN_COLOUR if colour == "white" else "white"
    axes.plot(*place, marker=marker, color=colour, markersize=size, markeredgecolor=edge, linestyle="none", zorder=3)


def _legend(figure: Figure, fitted: FittedPlan, reached: bool) -> None:
    marks = _reference_styles(fitted) | ({"reached": ("D", REACHED_COLOUR, 8.0)} if reached else {})
    key = [Line2D([], [], color=PLAN_COLOUR, linewidth=2.2, label="best by the law")]
    for name, (marker, colour, size) in marks.items():
        edge = PLAN_COLOUR if colour == "white" else colour
        key.append(Line2D([], [], marker=marker, markersize=size, color=colour, markeredgecolor=edge, linestyle="none"))
        key[-1].set_label(label(name, 26))
    figure.legend(handles=key, loc="outside lower left", ncols=5, fontsize=SMALL_POINTS, frameon=False)


def who_teaches_whom(fitted: FittedPlan) -> Figure:
    """Draw the exchange rates a_ij, each row relative to its best teacher; hatched: not determined by the runs."""
    law, rates = fitted.law, exchange_rates(fitted.law)
    values = np.array(rates["values"])  # (I, K)
    shares = values / np.maximum(values.max(axis=1, keepdims=True), 1e-12)
    known = np.ones(shares.shape, dtype=bool) if rates["known"] is None else np.array(rates["known"])
    height = 2.4 + 0.4 * len(law.sets)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained", facecolor="white")
    title = "Which domain teaches which set"
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("worth", ["#ffffff", PLAN_COLOUR])
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
    dress(axes, SMALL_POINTS)
    axes.grid(visible=False)
    slanted = len(law.domains) > 7
    names = [label(name, 16) for name in law.domains]
    axes.set_xticks(range(len(names)), names, rotation=40 * slanted, ha="right" if slanted else "center")
    axes.set_yticks(range(len(law.sets)), [_set_label(fitted, name) for name in law.sets])
    axes.set_xlabel("tokens of this domain", fontsize=TEXT_POINTS, color=INK)
    axes.set_ylabel("held-out set", fontsize=TEXT_POINTS, color=INK)
    for row, column in np.ndindex(*shares.shape):
        _rate(axes, column, row, float(shares[row, column]), bool(known[row, column]), len(names) <= NUMBERS_AT_MOST)
    scale = figure.colorbar(image, ax=axes, pad=0.02, aspect=30)
    scale.set_label("worth, of the best teacher's", fontsize=SMALL_POINTS, color=INK)
    scale.ax.tick_params(labelsize=SMALL_POINTS, colors=INK, length=0)
    return figure


def _set_label(fitted: FittedPlan, name: str) -> str:
    return f"{label(name, 16)} (measured)" if name in fitted.measured_only else label(name)


def _rate(axes: Axes, column: int, row: int, share: float, known: bool, written: bool) -> None:
    """Write a rate; one that the runs do not determine is hatched, and in parentheses."""
    if not known:
        place = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(place, 1, 1, facecolor="white", edgecolor="#d5d5d5", hatch="///", linewidth=0))
    if written:
        text = f"{share:.2f}" if known else f"({share:.2f})"
        colour = "white" if share > 0.6 and known else INK if known else MUTED
        axes.text(column, row, text, ha="center", va="center", fontsize=SMALL_POINTS, color=colour)


def runs_left_out(fitted: FittedPlan) -> Figure:
    """Draw, per set, the loss that each run of the swarm reached against the one that the others predict for it."""
    law = fitted.law
    reached, predicted = (law.scale * each + law.shift for each in (law.runs.losses, law.cross_validated))  # (R, I)
    names = sorted(law.sets, key=lambda name: -law.evidence[name].error)[:PANELS_AT_MOST]
    columns = min(len(names), 4)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(WIDTH_INCHES, 1.0 + 2.5 * rows), layout="constrained", facecolor="white")
    title = "The law, tried on runs that it was not fitted to"
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    for index, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if index >= len(names):
            axes.remove()
            continue
        each = law.sets.index(names[index])
        both = np.concatenate([reached[:, each], predicted[:, each]])
        ends = both.min(), both.max() + 1e-9
        dress(axes, SMALL_POINTS)
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.plot(reached[:, each], predicted[:, each], "o", color=PLAN_COLOUR, markersize=5, markerfacecolor="none")
        pairs = zip(reached[:, each], predicted[:, each], strict=True)
        texts = [f"{names[index]}: reached {one:.3f}, predicted {other:.3f} nats" for one, other in pairs]
        add_values(axes, reached[:, each].tolist(), predicted[:, each].tolist(), texts, PLAN_COLOUR)
        error = law.scale * law.evidence[names[index]].error
        axes.set_title(f"{label(names[index], 16)}  ±{error:.3f}", loc="left", fontsize=SMALL_POINTS, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel("reached by a run, nats per token", fontsize=TEXT_POINTS, color=INK)
    figure.supylabel("predicted, nats per token", fontsize=TEXT_POINTS, color=INK)
    return figure


def who_pays(fitted: FittedPlan) -> Figure:
    """Draw the predicted difference of every set and average to static, gains first, beside the best cheap mixture."""
    plan = fitted.plan
    recommended, cheap = plan.mixtures["recommended"], cheap_beside(plan)
    sets = sorted(recommended.set_differences, key=lambda name: recommended.set_differences[name].value)
    rows = [(_set_label(fitted, name), recommended.set_differences[name], "set_differences", name) for name in sets]
    rows += [(f"average: {label(name)}", each, "differences", name) for name, each in recommended.differences.items()]
    figure = Figure(figsize=(WIDTH_INCHES, rows_height(len(rows)) + 0.5), layout="constrained", facecolor="white")
    title = "Who gains, and who pays for it"
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold", color=INK)
    axes = figure.subplots()
    dress(axes)
    for row, (_, each, kind, name) in enumerate(rows):
        colour = PLAN_COLOUR if each.value <= 0 else REACHED_COLOUR
        axes.barh(row, each.value, height=0.6, color=colour, alpha=0.55 if kind == "set_differences" else 0.9)
        interval = ""
        if each.low is not None and each.high is not None:
            axes.plot([each.low, each.high], [row, row], color=INK, linewidth=1.6)
            interval = f", {signed(each.low, 4)} … {signed(each.high, 4)}"
        add_values(axes, [each.value], [row], [f"{name}: {signed(each.value, 4)} nats{interval}"], colour)
        if cheap is not None:
            axes.plot(getattr(plan.mixtures[cheap], kind)[name].value, row, "s", color="#6b6b6b", markersize=6)
    axes.set_yticks(range(len(rows)), [text for text, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=INK, linewidth=1)
    axes.axhline(len(sets) - 0.5, color="#9a9a9a", linewidth=0.8)
    axes.set_xlabel(f"predicted difference to {label(plan.baseline)}, nats per token", fontsize=TEXT_POINTS, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    beside = "" if cheap is None else f"; grey square: {cheap}"
    subtitle = f"blue: gains, orange: pays; line: {100 * plan.level:.4g} % interval{beside}"
    axes.set_title(subtitle, loc="left", fontsize=TEXT_POINTS, color=MUTED).set_gid(SUBTITLE)
    return figure
