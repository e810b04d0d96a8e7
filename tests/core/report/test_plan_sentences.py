"""What is said of a plan is the same on its page, in the report, on the terminal and from a table of runs."""

from __future__ import annotations

import re
from functools import cache

import planned_samples
import pytest
import result_samples
from comparison_samples import comparison, run
from planned_samples import BUDGET, MAIN_FLOPS
from rendered import Page

from tasks.views.table_rows import print_weights
from velocitune_core.contracts import StartingWeights
from velocitune_core.fit.result import FitResult
from velocitune_core.mixture_law import Objective
from velocitune_core.planned_weights import plan_weights
from velocitune_core.report.comparison_page import render_comparison
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.report.run_page import render_report

STATIC = {name: row[0] for name, row in result_samples.SEVEN.items()}
SAID = (  # by whom it was once left out
    "No mixture that the runs cover",
    "Too few runs: 9 for 7 domains.",
    "so the guard of general can be broken without showing in it",
    "The swarm trained a smaller sibling of the model",
    "The 9 runs took 2.25 times the operations of the main run.",
    "the plan pays for a main run from ",
)


@cache
def few_runs() -> tuple[StartingWeights, FittedPlan]:
    """A plan from fewer runs than it needs, by a law that sees no guard broken, of a sibling."""
    objective = Objective(initial_weights=STATIC, worse_than_static={"general": 0.0})
    targets = planned_samples.targets(STATIC)
    weights, found = plan_weights(
        planned_samples.swarm(STATIC)[:9],
        objective,
        targets,
        law="bimix",
        bootstrap=8,
        main_flops=MAIN_FLOPS,
        token_budget=BUDGET,
        model="models/small",
    )
    start = StartingWeights(strategy="planned", found_by="planned", domain_weights=weights, planned=found)
    return start, FittedPlan.of(found, objective, targets, 8)


def plain(text: str) -> str:
    return " ".join(text.split())


def test_page_report_and_terminal_say_the_same_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    start, fitted = few_runs()
    assert start.planned is not None
    explanation = start.planned.explanation
    for said in SAID:
        assert sum(said in sentence for sentence in explanation) == 1, said
    print_weights(start, STATIC)
    report = result_samples.report_data(weights=start)
    places = {
        "page of the plan": Page(fitted.page()).text,
        "report": Page(render_report(report, [])).text,
        "terminal": capsys.readouterr().err,
    }
    for place, text in places.items():
        assert [each for each in explanation if plain(text).count(plain(each)) != 1] == [], place


def test_the_reasons_to_doubt_a_plan_are_marked_on_its_page() -> None:
    html = few_runs()[1].page()
    assert re.findall(r'<p class="doubt">(.*?)</p>', html) == [
        "Too few runs: 9 for 7 domains. Differences may be chance."
    ]


def test_a_table_of_runs_is_answered_with_the_same_reasons_to_doubt() -> None:
    _, fitted = few_runs()
    found = FitResult(fitted.law, fitted.objective, fitted.plan)
    answer = plain(" ".join(found.lines()))
    assert all(plain(each) in answer for each in found.explanation)
    for said in SAID[:3]:
        assert said in answer


def test_no_page_shows_a_zero_with_a_sign() -> None:
    runs = [
        run(label, seed, {"code": 3.0, "general": 4.2, "papers": 5.4}) for label in ("static", "odm") for seed in (1, 2)
    ]
    for each in (comparison(*runs, frontier=["static"]), comparison(*(one for one in runs if one.seed == 1))):
        text = Page(render_comparison(each, [])).text
        assert "less than 0.001" in text or "equal to static" in text or "Nothing beat static" in text
        assert re.findall(r"[-−+]0\.0*(?!\d)", text) == []
