"""Pictures of a plan's law: what they draw is what the law says, and sets without text are marked as such."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import planned_samples
import pytest
from matplotlib.lines import Line2D
from rendered import Page, words

from velocitune_core.mixture_law import explain
from velocitune_core.report.figures.plan import plan_and_outcome
from velocitune_core.report.figures.plan_law import runs_left_out, trade_off_curves, who_pays, who_teaches_whom
from velocitune_core.report.fitted_plan import FittedPlan, plan_metrics
from velocitune_core.report.run_page import plan_figures
from velocitune_core.style.figure import MUTED, domain_colours

STATIC = {"code": 0.6, "law": 0.3, "web": 0.1}


@cache
def fitted(measured: bool = False) -> FittedPlan:
    return planned_samples.fitted(STATIC, measured=measured, averages_worse_than_static={"by_size": 0.005})


def marks(lines: list[Line2D], marker: str, colour: str) -> list[tuple[float, float]]:
    """Places of single marks of one look."""
    found = [line for line in lines if line.get_marker() == marker and line.get_color() == colour]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in found]


def test_the_plan_lies_on_its_curve_and_what_was_reached_where_its_losses_say() -> None:
    plan = fitted().plan
    static = {name: each.value for name, each in plan.mixtures["static"].losses.items()}
    figure = trade_off_curves(fitted(), {name: loss + 0.01 for name, loss in static.items()})
    by_size, worst = figure.axes
    x, y = np.array(by_size.lines[0].get_data())
    differences = plan.mixtures["recommended"].differences
    ((planned_x, planned_y),) = marks(by_size.lines, "o", "#0072B2")
    assert (planned_x, planned_y) == pytest.approx((differences["by_size"].value, differences["macro"].value))
    assert np.interp(planned_x, x, y) == pytest.approx(planned_y, abs=2e-3)  # of resamples, the curve of the law
    assert (np.diff(y) <= 1e-6).all() and np.interp(0.0, x, y) < 0
    assert marks(by_size.lines, "D", "#D55E00") == [(pytest.approx(0.01), pytest.approx(0.01))]
    assert marks(worst.lines, "D", "#D55E00") == [(pytest.approx(0.01), pytest.approx(0.01))]
    assert {"T = 1.5", "T = 3", "uniform", "recommended", "reached"} <= set(words(figure).splitlines())
    assert "by_size, to static\nnats per token" in words(figure)


def test_sets_with_limits_of_their_own_have_curves_of_their_own_the_tightest_three() -> None:
    limits = {"code": 0.0, "law": 0.3, "target": 0.01, "web": 0.5}
    case = planned_samples.fitted(
        STATIC,
        measured=True,
        bootstrap=0,
        worse_than_static=limits,
        forgetting={"law": 0.2},
        initial_losses={"law": 3.2},
    )
    own = ["worse_than_static.code", "worse_than_static.target", "worse_than_static.law"]
    assert {*case.curves} == {*own, "forgetting.law", "by_size"}
    figure = trade_off_curves(case, dict.fromkeys([*STATIC, "target"], 3.0))
    panels = {axes.get_xlabel().split(",")[0]: axes for axes in figure.axes}
    assert [*panels] == ["code", "target", "law", "forgetting of law", "by_size"]
    static, best = (case.plan.mixtures[name] for name in ("static", "recommended"))
    ((across, up),) = marks(panels["code"].lines, "o", "#0072B2")
    assert (across, up) == pytest.approx((best.set_differences["code"].value, best.differences["macro"].value))
    ((across, _),) = marks(panels["forgetting of law"].lines, "o", "#0072B2")
    assert across == pytest.approx(best.losses["law"].value - 3.2)
    assert static.set_differences["code"].value == pytest.approx(0)
    assert panels["code"].lines[-1].get_xdata() == [0.0, 0.0]  # the limit


def test_losses_of_short_runs_are_not_compared_with_those_of_the_whole_run() -> None:
    figure = trade_off_curves(fitted(measured=True), dict.fromkeys([*STATIC, "target"], 3.0))
    assert fitted(measured=True).short == ("target",)
    assert not any(marks(axes.lines, "D", "#D55E00") for axes in figure.axes)  # target is a part of macro


def test_a_legend_and_a_caption_name_only_what_is_drawn() -> None:
    reached = dict.fromkeys([*STATIC, "target"], 3.0)
    drawn, short = (plan_figures(case, reached)[0] for case in (fitted(), fitted(measured=True)))
    no_run, no_limit = (plan_figures(case)[0] for case in (fitted(), planned_samples.fitted(STATIC, bootstrap=0)))
    assert "reached" in words(drawn.figure) and "orange diamond" in drawn.reading and "dotted line" in drawn.reading
    for figure in (short, no_run):
        assert "reached" not in words(figure.figure) and "orange diamond" not in figure.reading
    assert "dotted line" not in no_limit.reading
    most = fitted().plan.most
    assert most is not None
    for name in ("uniform", "static"):
        case = replace(fitted(), plan=replace(fitted().plan, most=replace(most, reference=name)))
        who = plan_figures(case)[1]
        assert ("Grey squares" in who.reading) == ("grey square" in words(who.figure)) == (name == "uniform")


def test_a_domain_has_the_colour_of_the_other_figures_in_that_of_the_outcome() -> None:
    planned = fitted(measured=True).planned
    figure = plan_and_outcome(planned, STATIC, dict.fromkeys([*STATIC, "target"], 3.0))
    colours = domain_colours(STATIC)
    for axes in figure.axes:
        names = [text.get_text() for text in axes.get_yticklabels()]
        dots = [line.get_color() for line in axes.lines if line.get_marker() == "o"]
        assert dict(zip(names, dots, strict=True)) == {name: colours.get(name, MUTED) for name in names}


def test_the_matrix_says_that_each_domain_teaches_its_own_set_and_one_the_measured_set() -> None:
    figure = who_teaches_whom(fitted(measured=True))
    shares = np.asarray(figure.axes[0].images[0].get_array())
    assert shares.argmax(axis=1).tolist() == [0, 1, 0, 2]  # code, law, target (which learns from code), web
    assert shares.max(axis=1) == pytest.approx(1)
    text = words(figure)
    assert "target (measured)" in text and "tokens of this domain" in text


def test_who_pays_is_ordered_and_has_averages_apart() -> None:
    figure = who_pays(fitted())
    lengths = [float(bar.get_width()) for bar in figure.axes[0].patches]
    assert lengths[:3] == sorted(lengths[:3]) and lengths[0] < 0 < lengths[2]
    assert lengths[3] == pytest.approx(fitted().plan.mixtures["recommended"].differences["macro"].value)
    assert "average: macro" in words(figure) and "predicted difference to static, nats per token" in words(figure)


def test_runs_left_out_are_drawn_at_the_full_budget() -> None:
    figure = runs_left_out(fitted())
    assert len(figure.axes) == 3
    reached = figure.axes[0].lines[1].get_xdata()
    assert len(reached) == len(fitted().planned.runs)
    name = figure.axes[0].get_title(loc="left").split()[0]
    law = fitted().law
    each = law.sets.index(name)
    assert np.asarray(reached) == pytest.approx(law.runs.losses[:, each] + law.shift[each])


def test_sets_that_are_only_measured_are_named_in_words_and_on_the_page() -> None:
    case = fitted(measured=True)
    (sentence,) = [each for each in explain(case.plan) if each.startswith("Only measured")]
    assert sentence.startswith("Only measured, without training text: target ") and "to static" in sentence
    assert not any(each.startswith("Only measured") for each in explain(fitted().plan))
    text = " ".join(Page(case.page()).text.split())
    assert "target is only measured: no domain has its text" in text and "It is 25 % of the average 'macro'" in text
    assert "target has no target: predicted losses and forgetting are at the level of the swarm's runs" in text
    assert "is only measured" not in Page(fitted().page()).text


def test_a_page_shows_further_mixtures_beside_those_of_the_plan() -> None:
    page = Page(fitted().page({"this run": {"code": 0.2, "law": 0.2, "web": 0.6}}))
    assert "this run" in page.text


def test_what_each_round_bought_is_on_the_page() -> None:
    case = fitted()
    case = replace(case, planned=case.planned.model_copy(update={"rounds": planned_samples.ROUNDS}))
    text = " ".join(Page(case.page()).text.split())
    assert "Rounds of the swarm" in text and planned_samples.BOUGHT in text
    assert "4 mixtures, expected −0.0060" in text
    assert "Rounds of the swarm" not in Page(fitted().page()).text  # of runs that were made at once


def test_metrics_have_weights_predictions_and_price() -> None:
    metrics = plan_metrics(fitted())
    assert sum(metrics[f"plan/weight/{name}"] for name in STATIC) == pytest.approx(1)
    assert metrics["plan/difference/by_size"] <= 0.005 + 1e-6
    assert metrics["plan/price_in_runs"] == pytest.approx(12 * 0.25)
