"""Plans in a comparison: predicted against reached, objectives as reached, prices, mixtures, and measured sets."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import comparison_samples as samples
import planned_samples
import pytest
import yaml
from comparison_samples import TOKENS, comparison, run
from rendered import Page, words

from tasks.workspace.left_over import left_over
from velocitune_core.comparison.statistics import summarise
from velocitune_core.config import parse_params
from velocitune_core.config.yaml_text import parse_yaml
from velocitune_core.contracts import Comparison, Law
from velocitune_core.report import compared_plans as outcomes_of
from velocitune_core.report.compared_mixtures import mean_mixtures, measured_rows, mixture_block, mixture_rows
from velocitune_core.report.comparison_page import plan_pages, render_comparison
from velocitune_core.report.figures.compared_plans import plans_on_their_curves, predicted_and_reached
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.report.line_prices import line_price, price_in_words, price_rows
from velocitune_core.report.other_trainers import PLACE, fillable_texts

MIXTURE = {"code": 0.6, "general": 0.3, "papers": 0.1}


@cache
def plan() -> FittedPlan:
    """Minimises macro over code, general, papers and the measured set `target`, by size at most 0.05 worse."""
    return planned_samples.fitted(samples.ORIGINAL, measured=True, averages_worse_than_static={"by_size": 0.05})


def planned_runs(**changes: object) -> Comparison:
    """Two seeds; `planned` ends inside its intervals under the first, and 1 nat above that under the second."""
    predicted = plan().planned.plan["mixtures"]["recommended"]["losses"]
    losses = {name: (each["low"] + each["high"]) / 2 for name, each in predicted.items()}
    static = {name: each.value for name, each in plan().plan.mixtures["static"].losses.items()}
    runs = []
    for seed, off in ((1, 0.0), (2, 1.0)):
        for label, final in (("static", static), ("planned", {name: loss + off for name, loss in losses.items()})):
            trained = {name: final[name] for name in samples.ORIGINAL}
            weights = MIXTURE if label == "planned" else samples.ORIGINAL
            each = run(label, seed, trained, weights={0: weights}, search_tokens=2 * TOKENS * (label == "planned"))
            each.result.measured.update({"target": final["target"]})
            runs.append(each)
    law = Law(E=2.0, B=1.0, beta=0.5)
    laws = dict.fromkeys(samples.ORIGINAL, law)
    return comparison(
        *runs, **{"frontier": ["static"], "target_laws": laws, "initial_measured": {"target": 5.0}, **changes}
    )


def test_intervals_that_hold_what_was_reached_are_counted_over_sets_and_seeds() -> None:
    (outcome,) = outcomes_of.plan_outcomes(summarise(planned_runs()), {"planned": plan()})
    assert [each.name for each in outcome.losses] == ["code", "general", "papers"]  # target has no target loss
    assert outcome.coverage == (3, 6)
    assert outcome.error == pytest.approx(0.5, abs=1e-3)
    text = outcomes_of.outcome_in_words(outcome)
    assert text == (
        "3 of 6 intervals hold what was reached. The difference of 'macro' came out +0.500 nats from the prediction."
    )
    rows = {row["of"]: row for row in outcomes_of.outcome_rows(outcome)}
    assert list(rows)[:2] == ["average: macro", "average: by_size"]
    assert (rows["code"]["inside"], rows["target"]["inside"]) == ("1 of 2", "–")
    assert rows["target"]["loss, predicted"] == "–" and rows["target"]["difference, predicted"] != "–"


def test_a_plan_of_one_seed_is_held_against_the_run_of_that_seed() -> None:
    plans = {"planned-seed-1": plan(), "planned-seed-2": plan()}
    first, second = outcomes_of.plan_outcomes(summarise(planned_runs()), plans)
    assert (first.coverage, second.coverage) == ((3, 3), (0, 3))
    shown = " ".join(Page(render_comparison(planned_runs(), [], plans)).text.split())
    start = shown.index("Planned weights")
    assert start < shown.index("planned-seed-1", start) < shown.index("planned-seed-2", start)


def test_every_label_is_shown_under_the_objective_of_the_plan() -> None:
    summary = summarise(planned_runs())
    static, planned = outcomes_of.objective_rows(summary, plan())
    assert static == {"strategy": "static", "macro, to baseline": "–", "by_size ≤ +0.05": static["by_size ≤ +0.05"]}
    assert static["by_size ≤ +0.05"] == "0.000 ± 0.000, kept in 2 of 2"
    assert planned["by_size ≤ +0.05"].endswith("kept in 1 of 2")
    gain = plan().plan.mixtures["recommended"].differences["macro"].value  # over four sets
    (found,) = [each for each in outcomes_of.under_objective(summary, plan()) if each.label == "planned"]
    assert found.average == {1: pytest.approx(gain, abs=1e-3), 2: pytest.approx(gain + 1, abs=1e-3)}
    assert "none has a smaller 'macro' than static" in outcomes_of.best_in_words(summary, plan())


def test_a_price_is_compared_with_what_static_training_would_gain_for_it() -> None:
    one_seed = [each for each in planned_runs().runs if each.seed == 1]
    summary = summarise(planned_runs(runs=one_seed))
    found = line_price(summary, "planned")
    assert (found.tokens, found.share) == (2000, 2.0)
    assert found.static_gain == pytest.approx(1000**-0.5 - 3000**-0.5)
    assert found.gain is not None and found.gain.mean > 0 and found.pays_from is not None
    saved = (found.pays_from * 2000) ** -0.5 - ((found.pays_from + 1) * 2000) ** -0.5
    assert saved == pytest.approx(found.gain.mean, rel=1e-6)
    assert "from 300× the price (600 k tokens) on" in price_in_words(replace(found, pays_from=301.0), "macro")
    rows = {row["strategy"]: row for row in price_rows(summary)}
    assert rows["planned"]["static training for that price"] == "+0.013"
    assert rows["static"] == dict.fromkeys(rows["static"], "–") | {"strategy": "static", "price, tokens": "none"}
    own = line_price(summary, "planned", plan().shares("macro"))  # holds the measured set, which has no law
    assert own.static_gain is None and own.pays_from is None
    assert price_in_words(own, "macro").endswith("nats of 'macro' for 2 k tokens (2.00 of a run).")
    worse = line_price(summarise(planned_runs()), "planned")
    assert worse.pays_from is None and "gains nothing" in price_in_words(worse, "macro")


def test_mixtures_can_be_read_and_copied() -> None:
    summary = summarise(planned_runs())
    assert mean_mixtures(summary)["planned"] == pytest.approx(MIXTURE)
    row = mixture_rows(summary)[1]
    assert row == {
        "strategy": "planned",
        "over the run": "constant",
        "code": "60.0 %",
        "general": "30.0 %",
        "papers": "10.0 %",
    }
    odd = {"a: b": 0.33333, "no": 0.33336, "it's": 0.33331}
    weights = yaml.safe_load(mixture_block(odd))["mixture"]["initial_domain_weights"]
    assert weights == {"a: b": 0.3333, "no": 0.3334, "it's": 0.3333}


@pytest.mark.parametrize(
    "named", [{}, {"name": "ado", "options": {"prior": {}}}, {"name": "recommended", "search": 0.5}]
)
def test_under_what_is_copied_a_run_holds_the_weights(named: dict[str, object]) -> None:
    tree = parse_yaml(Path("params.yaml").read_bytes(), "params.yaml")
    assert tree["strategy"]["name"] == "recommended"  # which would search for other weights
    tree["strategy"] |= named
    weights = dict(zip(tree["domains"], (0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1), strict=True))
    filled = fillable_texts(weights)["params.yaml"]["text"]
    for number, weight in enumerate(weights.values()):
        filled = filled.replace(PLACE.format(number), str(weight))
    for block in (mixture_block(weights), filled):
        for section, keys in yaml.safe_load(block).items():
            tree[section] |= keys
        params = parse_params(tree)
        assert params.mixture.initial_domain_weights == weights
        assert (params.strategy.name, params.strategy.options, params.strategy.search) == ("static", {}, None)
        assert not left_over(tree)


def test_sets_that_are_only_measured_have_a_table_and_are_not_in_the_macro_average() -> None:
    data = planned_runs()
    base, _, planned = measured_rows(summarise(data))
    assert base == {"strategy": "base model", "target, loss": "5.000", "target, to baseline": "–"}
    assert planned["target, to baseline"].startswith(("+", "−"))
    without = [
        each.model_copy(update={"result": each.result.model_copy(update={"measured": {}})}) for each in data.runs
    ]
    summary, same = summarise(data), summarise(planned_runs(runs=without))
    assert measured_rows(same) == []
    macro = [each.strategies["planned"].metrics["macro_average_loss"] for each in (summary, same)]
    assert macro[0] == macro[1]


def test_figures_show_the_plan_on_its_curve_and_every_seed() -> None:
    summary = summarise(planned_runs())
    outcomes = outcomes_of.plan_outcomes(summary, {"planned": plan()})
    (axes,) = plans_on_their_curves(summary, outcomes).axes
    assert len(axes.lines[0].get_xdata()) > 5  # the curve
    assert axes.get_xlabel() == "by_size, to static\nnats per token"
    figure = predicted_and_reached(outcomes)
    seeds = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert len(seeds) == 6 and all(len(line.get_xdata()) == 2 for line in seeds)  # two averages, four sets
    assert "difference to the baseline, nats per token" in words(figure)


def test_the_page_has_all_of_it_and_links_to_the_page_of_the_plan() -> None:
    data = planned_runs()
    page = Page(render_comparison(data, [], {"planned": plan()}))
    text = " ".join(page.text.split())
    assert "The plan of planned 3 of 6 intervals hold what was reached" in text
    assert "What each label is worth" in text and "Sets that are only measured" in text
    assert "initial_domain_weights: code: 0.6" in text
    assert page.loads == ["plans/planned.html"]
    (own,) = plan_pages(data, {"planned": plan()}).values()
    assert "(compared)" not in Page(own).text  # static is a mixture of the plan already
    alone = Page(render_comparison(samples.three_seeds(), [])).text
    assert "The plan of" not in alone and "Sets that are only measured" not in alone
    assert "The targets have no laws" in alone


def test_forgetting_of_a_set_without_a_target_is_no_plane_for_whole_runs() -> None:
    """`target` has no target loss: its predicted forgetting is not at the level of a whole run."""
    fitted = replace(plan(), objective=replace(plan().objective, retained=["target"], initial_losses={"target": 3.0}))
    vars(fitted)["curves"] = {"forgetting": plan().curves["by_size"], **plan().curves}  # as with a guard on it
    summary = summarise(planned_runs())
    figure = plans_on_their_curves(summary, outcomes_of.plan_outcomes(summary, {"planned": fitted}))
    assert figure.axes[0].get_xlabel().startswith("by_size")


def test_figures_say_how_many_plans_they_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocitune_core.report.figures.compared_plans.PLANS_AT_MOST", 1)
    summary = summarise(planned_runs())
    outcomes = outcomes_of.plan_outcomes(summary, {"planned": plan()}) * 3
    for figure in (plans_on_their_curves(summary, outcomes), predicted_and_reached(outcomes)):
        assert figure.get_suptitle().endswith(": 1 of 3 plans") and len(figure.axes) == 1


def test_runs_that_cost_nothing_are_not_among_those_that_are_paid_for() -> None:
    fitted = plan()
    runs = [fitted.planned.runs[0].model_copy(update={"use": "earlier"}), *fitted.planned.runs[1:]]
    free = replace(fitted, planned=fitted.planned.model_copy(update={"runs": runs}))
    (row,) = outcomes_of.plan_rows({"planned": free})
    assert row["runs"] == str(len(runs) - 1)
