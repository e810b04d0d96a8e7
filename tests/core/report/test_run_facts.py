"""Facts of a run on its page: numbers at the top, the table of domains, how it was made, and the search behind it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import result_samples as samples
from rendered import Page, without_drawing, words

from velocitune_core.report.domain_table import cautions, domain_rows, warnings
from velocitune_core.report.figures.targets import laws
from velocitune_core.report.figures.training import StepPoint
from velocitune_core.report.inline_svg import draw
from velocitune_core.report.run_facts import RunFacts, fact_rows, learnt_and_forgotten, tiles
from velocitune_core.report.run_page import render_report, report_figures
from velocitune_core.style.figure import CAUTION, WARNING

FACTS = RunFacts(
    model="models/base",
    started=1_700_000_000.0,
    finished=1_700_000_200.0,
    commit="0123abc",
    hardware="1 process on AMD EPYC, 2 cores",
    seed=4,
    steps=[StepPoint(10, 5.0, 1e-3), StepPoint(20, 4.0, 5e-4)],
    bytes_per_token=dict.fromkeys(samples.SEVEN, 4.0),
    changed_settings="strategy:\n  name: velocitune\n",
)


def test_what_was_learnt_and_forgotten_differ_by_the_fall_of_the_mean() -> None:
    report = samples.report_data()
    learnt, forgotten = learnt_and_forgotten(report)
    assert forgotten == pytest.approx(0.26 / 7)  # general: 4.45 → 4.71
    assert learnt - forgotten == pytest.approx((34.65 - 27.37) / 7)
    found = {each.label: each for each in tiles(report, FACTS)}
    assert found["Mean held-out loss"].value == "−1.040"
    assert found["Forgotten of learnt"].value == f"{100 * forgotten / learnt:.1f} %"
    assert found["Perplexity"].value == f"{math.exp(34.65 / 7):.1f} → {math.exp(27.37 / 7):.1f}"
    bits = [each / 7 / math.log(2) / 4 for each in (34.65, 27.37)]
    assert found["Bits per byte"].value == f"{bits[0]:.3f} → {bits[1]:.3f}"
    assert found["Weight updates"] == ("Weight updates", "29", "in 366 steps, 1.5 M tokens")
    assert found["Time of training"].value == "5 min 49 s"  # 200 s and 7/8 of 170 s for the proxies
    assert "Bits per byte" not in {each.label for each in tiles(report, RunFacts())}


@pytest.mark.parametrize("strategy", ["static", "uniform", "temperature"])
def test_a_strategy_that_holds_its_weights_made_no_update_of_them(strategy: str) -> None:
    held = samples.report_data(train=samples.train(strategy=strategy))
    found = {each.label: each for each in tiles(held, RunFacts())}
    assert found["Weight updates"] == ("Weight updates", "0", "in 366 steps, 1.5 M tokens")


def test_the_table_has_a_row_per_domain_and_their_mean() -> None:
    rows = {row["domain"].text: row for row in domain_rows(samples.report_data(), FACTS)}
    assert list(rows) == [*sorted(samples.SEVEN), "mean"]
    assert rows["code"]["loss"][:2] == ("3.300", "4.900") and not rows["code"]["change"].worse
    assert rows["general"]["change"] == ("+0.260", "", True)
    assert rows["code"]["perplexity"][:2] == (f"{math.exp(3.3):.1f}", f"{math.exp(4.9):.1f}")
    assert rows["code"]["bits per byte"].text == f"{3.3 / math.log(2) / 4:.3f}"
    assert rows["mean"]["loss"][:2] == ("3.910", "4.950")
    assert rows["mean"]["tokens"].text == "214 k"  # 1.5 M over 7 domains
    assert "bits per byte" not in domain_rows(samples.report_data(), RunFacts())[0]


def test_red_is_what_went_wrong_and_flags_are_one_line_in_amber() -> None:
    report = samples.report_data()
    flags = {
        name: each.model_copy(update={"flags": ["wide_interval"]}) for name, each in report.targets.domains.items()
    }
    flagged = replace(report, targets=report.targets.model_copy(update={"domains": flags}))
    assert warnings(flagged) == ["Worse than the base model: general (+0.260), nats per token."]
    assert cautions(flagged) == ["Targets to take with caution: wide interval (all domains)."]
    html = render_report(flagged, [])
    assert html.count('class="alert"') == 1 and html.count('class="alert mild"') == 1


def test_the_page_has_how_the_run_was_made() -> None:
    report = samples.report_data()
    rows = fact_rows(report, FACTS)
    assert rows["date"] == "2023-11-14 22:13 to 2023-11-14 22:16 UTC"
    assert rows["model"] == "models/base (1.6 M parameters)"
    text = " ".join(Page(render_report(report, [], FACTS)).text.split())
    defaults = ("Different from the built-in defaults then", "where params.yaml leaves a setting out")
    for shown in ("0123abc", "1 process on AMD EPYC, 2 cores", "seed4", "3 min 20 s", *defaults):
        assert shown in text
    assert "commit" not in fact_rows(report, RunFacts())
    curve = next(each for each in report_figures(report, None, FACTS) if each.name == "training_curve")
    points = json.loads(draw(curve.figure, "curve", curve.size).panels[1].points)
    assert [each[2] for each in points] == [
        "learning rate: 0.001 after 10 tokens",
        "learning rate: 0.0005 after 20 tokens",
    ]


def test_a_search_is_on_the_page_with_its_weights_and_velocities() -> None:
    held = samples.train(strategy="static")
    found = samples.weights().model_copy(update={"strategy": "recommended"})
    report = samples.report_data(weights=found, train=held)
    figures = {each.name: each for each in report_figures(report)}
    assert "code  33.4 % → 21.0 %" in words(figures["search_weights"].figure)
    assert "in the search" in words(figures["velocity_per_domain"].figure)
    assert "measures no velocity" not in words(figures["velocity_per_domain"].figure)
    with without_drawing():
        html = render_report(report, [figures["change_per_domain"], figures["search_weights"]])
    assert html.index('id="change_per_domain"') < html.index('id="search_weights"') < html.index("Result per domain")
    assert "recommended" in Page(html).text and "search (1 run)" in Page(html).text
    assert "4 runs before it read 188 % of its tokens" in " ".join(
        Page(html).text.split()
    )  # three proxies, and the search
    assert "search_weights" not in {each.name for each in report_figures(samples.report_data())}


def test_flags_are_above_the_panel_and_cover_no_point() -> None:
    targets = samples.targets()
    raised = {"code": ["wide_interval"], "legal": ["not_decreasing", "above_initial", "at_bound"]}
    domains = {name: each.model_copy(update={"flags": raised.get(name, [])}) for name, each in targets.domains.items()}
    figure = laws(targets.model_copy(update={"domains": domains}))
    figure.draw_without_rendering()
    colours = {}
    for axes in figure.axes:
        for text in axes.texts:
            colours[axes.get_title(loc="left").split()[0]] = text.get_color()
            assert text.get_window_extent().y0 >= axes.get_window_extent().y1
    assert colours == {"code": CAUTION, "legal": WARNING}
