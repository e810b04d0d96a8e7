"""The page of a comparison: rows, outcome, metrics, and figures of a minimal and of a large comparison."""

from __future__ import annotations

import re

import comparison_samples as samples
import pytest
from comparison_samples import comparison, losses, run
from rendered import Page, words

from velocitune_core.comparison.figures import final, over_tokens
from velocitune_core.comparison.figures.strategy_style import strategy_styles
from velocitune_core.comparison.narrative import outcome
from velocitune_core.comparison.statistics import summarise
from velocitune_core.comparison.tables import (
    comparison_metrics,
    cost_rows,
    formatted_comparison,
    raw_rows,
)
from velocitune_core.contracts import Comparison, ContractError
from velocitune_core.export import FORMATS, Destination, export, of_label
from velocitune_core.report.comparison_page import (
    comparison_figures,
    render_comparison,
)
from velocitune_core.report.headline import comparison_answer
from velocitune_core.report.other_trainers import MOST_SHARES, label_blocks
from velocitune_core.style.for_pages import values_of
from velocitune_core.style.text import percent


def gaining() -> Comparison:
    """Return runs in which velocitune gains on the frontier and odm forgets `general` by a nat."""
    runs = [each for each in samples.three_seeds().runs if each.label != "velocitune"]
    for seed, d in ((1, 0.0), (2, 0.1), (3, 0.2)):
        runs.append(run("velocitune", seed, losses(3.3 + d, 4.2 + d, 4.5 + d - 0.01 * seed), uses_targets=True))
        runs.append(run("odm", seed, losses(3.3 + d, 5.2 + d, 4.8 + d)))
    return samples.three_seeds(runs=runs)


def test_rows_are_text() -> None:
    static, even, velocitune = formatted_comparison(samples.three_seeds())
    assert velocitune == {
        "strategy": "velocitune",
        "seeds": "3",
        "macro-average loss": "4.100 ± 0.000",
        "to baseline": "−0.200 ± 0.248",
        "size-weighted loss": "3.880 ± 0.025",
        "learnt average": "4.000 ± 0.124",
        "retention": "0.300 ± 0.248",
        "worst shortfall": "45.0 ± 24.8 %",  # papers: 55, 45 and 35 % of 2 nats
        "to frontier (by size)": "−0.400 ± 0.497* on the frontier",
        "to frontier (retention)": "−0.150 ± 0.373 on the frontier",
    }
    assert static["to baseline"] == "–"
    assert even["to baseline"] == "−0.100 ± 0.000"


def test_one_seed_has_no_interval() -> None:
    data = samples.three_seeds(runs=[each for each in samples.three_seeds().runs if each.seed == 1])
    row = formatted_comparison(data)[2]
    assert row["to baseline"] == "−0.100"
    assert row["to frontier (by size)"] == "−0.200*"
    assert "of one seed, so without an interval (1)" in " ".join(Page(render_comparison(data, [])).text.split())
    assert "One seed gives no interval" in outcome(summarise(data))
    assert "± –" not in outcome(summarise(data))


def test_fewer_pairs_than_seeds_are_shown() -> None:
    runs = [each for each in samples.three_seeds().runs if (each.label, each.seed) != ("static", 2)]
    assert formatted_comparison(samples.three_seeds(runs=runs))[2]["to baseline"].endswith("(2 pairs)")


def test_columns_that_do_not_exist_are_left_out() -> None:
    row = formatted_comparison(samples.three_seeds(retained=[], frontier=[]))[0]
    assert not {"retention", "to frontier (retention)", "to frontier (by size)"} & set(row)


def test_costs() -> None:
    rows = {row["strategy"]: row for row in cost_rows(summarise(samples.three_seeds()))}
    assert rows["velocitune"]["added tokens"] == "87.5 %"
    assert rows["velocitune"]["added time"] == "75.0 %"  # (4 + 2) / 8
    assert rows["velocitune"]["settles at step"] == "5"
    assert rows["static"]["speed-up"] == "1.00×"
    runs = [run("static", seed, losses(4, 4, 4)) for seed in (1, 2)]
    runs += [run("other", 1, losses(3, 3, 3)), run("other", 2, losses(5, 5, 5))]
    other = cost_rows(summarise(comparison(*runs)))[1]
    assert other["speed-up"] == "reached in 1 of 2"
    assert raw_rows(summarise(comparison(*runs)))[3]["speed-up"] == "–"


def test_the_outcome_names_best_mixture_gains_forgetting_and_cost() -> None:
    text = outcome(summarise(gaining()))
    assert text.startswith("4 strategies, 3 seeds, 1 k tokens per run. The best constant mixture is even with a ")
    assert "4.200 ± 0.248 nats per token, −0.100 ± 0.000 against static." in text
    # per seed at (3.84 − 0.003 seed, 4 − 0.01 seed/3); the line is at 4.2 + (0.12 + 0.003 seed)/0.9 there, which is
    # −(3 + 0.06 seed)/9 away: −0.34, −0.3467, −0.3533
    gain = "velocitune (−0.347 ± 0.017) is below the frontier of constant mixtures with an interval that excludes zero"
    assert gain in text
    assert "odm is above it" in text
    assert (
        "All strategies have partly forgotten general: +1.300 ± 0.248 nats with odm, +0.300 ± 0.248 with static."
        in text
    )
    assert text.endswith(
        "Added to the run's own cost by the strategies that gain: velocitune 87.5 % tokens and 75.0 % time."
    )


def test_the_outcome_where_no_strategy_gains_and_without_a_frontier() -> None:
    text = outcome(summarise(samples.three_seeds()))
    assert "no other strategy is below the frontier of constant mixtures" in text
    assert "a gain cannot be distinguished from a trade" in outcome(summarise(samples.three_seeds(frontier=[])))


def test_metrics_are_flat() -> None:
    metrics = comparison_metrics(samples.three_seeds())
    assert metrics["velocitune/macro_average_loss"] == pytest.approx(4.1)
    assert metrics["velocitune/macro_average_loss/difference"] == pytest.approx(-0.2)
    assert metrics["velocitune/macro_average_loss/difference/half_width"] == pytest.approx(0.24841, abs=1e-5)
    assert metrics["velocitune/frontier/size_weighted"] == pytest.approx(-0.4)
    assert metrics["velocitune/loss/papers"] == pytest.approx(4.9)
    assert "static/macro_average_loss/difference" not in metrics
    assert all(isinstance(value, float) for value in metrics.values())
    alone = comparison(run("static", 1, losses(3, 4, 5)))
    assert not [name for name in comparison_metrics(alone) if "half_width" in name]


def test_the_page_is_self_contained() -> None:
    html = render_comparison(gaining())
    page = Page(html)
    assert page.tags.count("figure") == 7
    assert all(source.startswith("#") for source in page.loads)  # of parts of a picture
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg\")|@import|url\((?!#)", html)
    assert page.tags.count("script") == 1 and not {"link", "iframe", "object", "img"} & set(page.tags)
    assert page.tags.count("details") == 2 + 4 + 4 * len(FORMATS)  # a mixture of each label, and for each trainer
    assert comparison_answer(gaining()).partition(". ")[0] in " ".join(page.text.split())
    assert html.count('<tr class="gain">') == 1
    shown = " ".join(page.text.split())
    assert outcome(summarise(gaining())) in shown
    assert "Retained: general; learnt: code, papers." in shown
    assert "left of all mixtures in at least one seed" in shown
    assert "Downstream" not in shown


def test_each_label_is_there_for_other_trainers_as_the_command_writes_it() -> None:
    """Without its comment, and for rows of equal length where no manifest counts the documents."""
    shown = Page(render_comparison(samples.three_seeds(), [])).text
    for name in FORMATS.keys() - {"trl"}:  # refused
        to, where = FORMATS[name], Destination(schedule="mean", unit="sequences")
        text = export(of_label(samples.three_seeds(), "velocitune"), to, where).files[""]
        uncommented = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
        assert uncommented in shown, name
    assert "--to trl: fraction: 1000 tokens are more than one epoch" in shown
    too_many = [f"label-{number}" for number in range(MOST_SHARES // 3 + 1)]
    assert label_blocks(samples.three_seeds(), too_many, None) == {}


def test_html_in_labels_is_escaped() -> None:
    attack = '<script>alert("x")</script>'
    page = Page(render_comparison(comparison(run("static", 1, losses(3, 4, 5)), run(attack, 1, losses(3, 4, 5))), []))
    assert page.tags.count("script") == 1
    assert attack in page.text


def one_domain() -> Comparison:
    only = {"initial": {"code": 5.0}, "targets": {"code": 3.0}, "initial_domain_weights": {"code": 1.0}}
    runs = run("static", 1, {"code": 3.2}), run("other", 1, {"code": 3.1})
    return comparison(*runs, retained=[], frontier=["static"], domain_tokens={"code": 900}, **only)


ONE_LABEL = comparison(run("static", 1, losses(3, 4, 5)))  # and one seed, no frontier


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(ONE_LABEL, id="one label"),
        *(
            pytest.param(data, id=name, marks=pytest.mark.slow)
            for name, data in {
                "no pair": comparison(run("static", 1, losses(3, 4, 5)), run("late", 2, losses(3, 4, 5))),
                "all retained": comparison(*ONE_LABEL.runs, retained=["code", "general", "papers"]),
                "one domain": one_domain(),
            }.items()
        ),
    ],
)
def test_small_comparisons_draw_and_render(data: Comparison) -> None:
    html = render_comparison(data)
    assert Page(html).tags.count("figure") == 7
    assert not re.search(r"\bnan\b", Page(html).text)


@pytest.mark.slow
def test_figures_of_a_large_comparison_name_every_strategy() -> None:
    data = samples.drawn(strategies=14, seeds=2, domains=13)
    text = {each.name: words(each.figure) for each in comparison_figures(data)}
    for name in ("frontier_planes", "macro_average_over_tokens", "retention_over_tokens", "added_cost"):
        assert {run.label for run in data.runs} <= set(text[name].splitlines())
    assert "static" not in text["difference_per_domain"]
    assert "•" in text["difference_per_domain"]  # too many domains for numbers
    assert "2 others" in text["weights_by_strategy"]


def test_figures_without_data_are_notices() -> None:
    summary = summarise(samples.three_seeds(retained=[]))
    assert "no retained domain" in words(over_tokens.retention_over_tokens(summary))
    alone = summarise(comparison(run("static", 1, losses(3, 4, 5))))
    assert "no strategy but the baseline" in words(final.difference_per_domain(alone))
    assert "No strategy changed its weights" in words(over_tokens.weights_by_strategy(alone))


def test_the_mixtures_of_all_labels_are_drawn() -> None:
    (figure,) = [each.figure for each in comparison_figures(gaining()) if each.name == "mixtures"]
    assert {"static", "even", "velocitune", "odm", "code", "papers"} <= set(words(figure).splitlines())
    (axes,) = figure.axes
    (first, *_), bars = values_of(axes), axes.patches
    assert len(bars) == 4 * 3 and sum(bar.get_width() for bar in bars) == pytest.approx(4)
    assert first.text == f"static: code {percent(bars[0].get_width())}"


def test_a_strategy_looks_the_same_whatever_else_is_compared() -> None:
    styles = strategy_styles(summarise(samples.drawn(seeds=1)))
    assert len({(style.colour, style.marker) for style in styles.values()}) == 12
    assert styles["static"].constant
    assert not styles["odm"].constant


def test_runs_that_cannot_be_compared_are_refused_by_all() -> None:
    bad = samples.three_seeds(baseline="nobody")
    for make in (formatted_comparison, comparison_metrics, comparison_figures, render_comparison):
        with pytest.raises(ContractError, match="baseline 'nobody' has no run"):
            make(bad)


def test_a_swarm_that_seeds_share_and_a_reference_that_is_a_compared_run_take_their_time_once() -> None:
    """Four runs of 10 s, a swarm of 20 s behind both seeds of planned, and a search of 3 s after static's run."""
    ends = losses(3.0, 4.2, 5.4)
    runs = [run("static", seed, ends) for seed in (1, 2)]
    runs[0] = runs[0].model_copy(update={"result": runs[0].result.model_copy(update={"recipe": "0123456789abcdef"})})
    swarm = {"search_seconds": 20.0, "search_runs": {"a": 12.0, "b": 8.0}}
    runs += [run("planned", seed, ends, **swarm) for seed in (1, 2)]
    runs.append(run("doremi", 1, ends, search_seconds=13.0, search_runs={"0123456789ab": 10.0, "search": 3.0}))
    assert "Time of all runs1 min 13 s" in Page(render_comparison(comparison(*runs), [])).text
    runs.append(run("of an earlier version", 1, ends, search_seconds=7.0))
    assert "Time of all runs1 min 30 s" in Page(render_comparison(comparison(*runs), [])).text
