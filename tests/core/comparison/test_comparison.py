"""Metrics of single runs, estimates and differences over seeds: all numbers worked out by hand."""

from __future__ import annotations

import comparison_samples as samples
import pytest
from comparison_samples import comparison, losses, run
from hypothesis import given, settings
from hypothesis import strategies as st

from velocitune_core.comparison.checks import check_comparison
from velocitune_core.comparison.metrics import METRICS, labels, metric, run_metrics
from velocitune_core.comparison.narrative import outcome
from velocitune_core.comparison.statistics import ComparisonSummary, Estimate, estimate, summarise
from velocitune_core.contracts import Comparison, ContractError, Timings


def test_metrics_of_one_run() -> None:
    ours = run(
        "velocitune",
        1,
        losses(3.5, 4.3, 4.2),
        tokens_per_domain={"code": 500, "general": 250, "papers": 250},
        search_tokens=500,
        search_seconds=2.0,
        uses_targets=True,
        downstream={"commands": 1.25},
    )
    metrics = run_metrics(comparison(run("static", 1, losses(3, 4.2, 5.1)), ours), ours)
    assert set(METRICS) < set(metrics)
    assert metrics["macro_average_loss"] == pytest.approx(4.0)  # 12 / 3
    assert metrics["size_weighted_loss"] == pytest.approx(3.87)  # 1.75 + 0.86 + 1.26
    assert metrics["learnt_average_loss"] == pytest.approx(3.85)  # code and papers
    assert metrics["retention"] == pytest.approx(0.3)  # general: 4.3 − 4.0
    assert metrics["worst_shortfall"] == pytest.approx(0.25)  # code: 0.5 of 2; papers: 0.2 of 2; general has no gap
    assert metrics["repeated_tokens"] == 150  # general: 250 of 100
    assert metrics["added_tokens"] == pytest.approx(1.375)  # (875 + 500) / 1000
    assert metrics["added_seconds"] == pytest.approx(1.0)  # (4 + 2 + 1.5 + 0.5) / (10 − 2)
    assert metrics["downstream/commands"] == 1.25
    assert metric("downstream/commands").unit == "bits per byte"


def test_the_added_cost_of_a_run_without_targets_or_search_is_its_evaluations() -> None:
    ours = run("static", 1, losses(3, 4.2, 5.1))
    metrics = run_metrics(comparison(ours), ours)
    assert metrics["added_tokens"] == 0
    assert metrics["added_seconds"] == pytest.approx(0.25)  # 2 / 8
    without_time = run("static", 1, losses(3, 4.2, 5.1), seconds=Timings())
    assert run_metrics(comparison(without_time), without_time)["added_seconds"] is None


def test_a_run_with_targets_of_its_own_pays_for_their_proxies() -> None:
    one = run("one", 1, losses(3, 4, 5), uses_targets=True, proxy_tokens=200, proxy_seconds=1.0)
    data = comparison(run("static", 1, losses(3, 4, 5)), run("all", 1, losses(3, 4, 5), uses_targets=True), one)
    assert run_metrics(data, one)["added_tokens"] == pytest.approx(0.2)  # 200 / 1000, not 875
    assert run_metrics(data, one)["added_seconds"] == pytest.approx(0.375)  # (1 + 1.5 + 0.5) / 8
    said = outcome(summarise(data))
    assert "those of one (200 tokens), and for the other strategies with targets those of the pipeline (875" in said
    assert "of the pipeline" not in outcome(summarise(comparison(run("static", 1, losses(3, 4, 5)))))


def test_speed_up_is_read_between_evaluations() -> None:
    static = run("static", 1, losses(4.0, 4.0, 4.0), points={500: losses(4.2, 4.2, 4.2)})
    fast = run("fast", 1, losses(3.7, 3.7, 3.7), points={400: losses(4.5, 4.5, 4.5), 800: losses(3.8, 3.8, 3.8)})
    slow = run("slow", 1, losses(4.1, 4.1, 4.1))
    alone = run("fast", 2, losses(3.7, 3.7, 3.7))
    data = comparison(static, fast, slow, alone)
    reached = run_metrics(data, fast)
    # 4.5 → 3.8 from 400 to 800 tokens passes 4.0 after 5/7 of the way
    assert reached["tokens_to_baseline"] == pytest.approx(400 + 400 * 5 / 7)
    assert reached["speed_up"] == pytest.approx(1000 / (4800 / 7))
    assert run_metrics(data, static)["speed_up"] == 1
    assert run_metrics(data, slow)["speed_up"] is None
    assert run_metrics(data, alone)["speed_up"] is None  # no baseline of this seed


def test_a_baseline_that_learnt_nothing_is_reached_at_once() -> None:
    static, other = run("static", 1, losses(6.0, 6.0, 6.0)), run("other", 1, losses(3.0, 4.0, 5.0))
    metrics = run_metrics(comparison(static, other), other)
    assert metrics["tokens_to_baseline"] == 0
    assert metrics["speed_up"] is None


def test_weights_settle_when_all_later_ones_are_near_the_last() -> None:
    weights = {
        0: losses(0.5, 0.2, 0.3),
        2: losses(0.41, 0.29, 0.3),  # near, but step 4 is not
        4: losses(0.5, 0.2, 0.3),  # 0.1 away
        6: losses(0.44, 0.26, 0.3),  # 0.04 away
        8: losses(0.4, 0.3, 0.3),
    }
    ours = run("static", 1, losses(3, 4.2, 5.1), weights=weights)
    assert run_metrics(comparison(ours), ours)["steps_to_settle"] == 6
    constant = run("static", 1, losses(3, 4.2, 5.1))
    assert run_metrics(comparison(constant), constant)["steps_to_settle"] == 0


def test_metrics_that_do_not_exist_are_none() -> None:
    ours = run("static", 1, {"code": 3.0})
    only = {"initial": {"code": 5.0}, "targets": {"code": 5.5}, "initial_domain_weights": {"code": 1.0}}
    metrics = run_metrics(comparison(ours, retained=[], domain_tokens={"code": 1000}, **only), ours)
    assert metrics["retention"] is None
    assert metrics["worst_shortfall"] is None
    assert metrics["learnt_average_loss"] == 3.0
    kept = run_metrics(comparison(ours, retained=["code"], domain_tokens={"code": 1000}, **only), ours)
    assert kept["retention"] == -2.0
    assert kept["learnt_average_loss"] is None


def test_the_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t(0.975, 2) · 1 / √3
    assert found.sign == 0  # 2 ± 2.48
    assert estimate([4.0]) == Estimate(4.0, None, 1)
    assert Estimate(4.0, None, 1).sign is None
    assert Estimate(-0.2, 0.1, 3).sign == -1
    assert Estimate(0.2, 0.1, 3).sign == 1
    assert Estimate(0.0, 0.0, 3).sign == 0
    assert Estimate(-0.00114, 0.00107, 2).sign == 0  # shown as −0.001 ± 0.001
    assert Estimate(-0.0016, 0.0014, 2).sign == -1  # as −0.002 ± 0.001
    assert estimate([]) is None


def test_differences_are_paired_by_seed() -> None:
    velocitune = summarise(samples.three_seeds()).strategies["velocitune"]
    macro = velocitune.differences["macro_average_loss"]
    assert macro is not None
    assert macro.seeds == 3
    assert macro.mean == pytest.approx(-0.2)  # −0.1, −0.2, −0.3
    assert macro.half_width == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    papers = velocitune.loss_differences["papers"]
    assert papers is not None
    assert papers.mean == pytest.approx(-0.6)
    code = velocitune.loss_differences["code"]
    assert code is not None
    assert (code.mean, code.sign) == (0, 0)
    assert velocitune.dynamic
    assert not summarise(samples.three_seeds()).baseline.dynamic


def test_only_seeds_that_both_have_are_paired() -> None:
    runs = samples.three_seeds().runs
    fewer = [each for each in runs if (each.label, each.seed) != ("static", 2)]
    summary = summarise(samples.three_seeds(runs=fewer))
    velocitune = summary.strategies["velocitune"]
    macro = velocitune.differences["macro_average_loss"]
    assert macro is not None
    assert (macro.seeds, macro.mean) == (2, pytest.approx(-0.2))  # −0.1, −0.3
    whole = velocitune.metrics["macro_average_loss"]
    assert whole is not None
    assert whole.seeds == 3
    assert sorted(summary.frontiers["size_weighted"]) == [1, 3]  # seed 2 lacks a constant mixture
    apart = run("other", 9, losses(3, 4, 5))
    other = summarise(samples.three_seeds(runs=[*runs, apart])).strategies["other"]
    assert other.differences["macro_average_loss"] is None
    assert other.distances["size_weighted"] is None


def test_a_speed_up_has_a_mean_only_if_every_seed_reaches_the_baseline() -> None:
    runs = [run("static", seed, losses(4, 4, 4)) for seed in (1, 2)]
    runs += [run("other", 1, losses(3, 3, 3)), run("other", 2, losses(4.1, 4.1, 4.1))]
    other = summarise(comparison(*runs)).strategies["other"]
    assert other.metrics["speed_up"] is None
    assert other.differences["speed_up"] is None
    assert other.runs[1]["speed_up"] == pytest.approx(2.0)  # 5 → 3 over the run passes 4 half-way


def test_labels_come_in_the_order_of_the_table() -> None:
    assert labels(samples.three_seeds()) == ["static", "even", "velocitune"]
    assert labels(samples.three_seeds(baseline="velocitune")) == ["velocitune", "static", "even"]


def refusal(data: Comparison) -> str:
    with pytest.raises(ContractError) as caught:
        check_comparison(data)
    return str(caught.value)


def test_runs_that_cannot_be_compared_are_refused_in_one_message() -> None:
    good = run("static", 1, losses(3, 4, 5))
    message = refusal(
        comparison(
            good,
            good,
            run("long", 2, losses(3, 4, 5), tokens=2000, steps=20),
            run("lacking", 3, {"code": 3.0, "other": 4.0}),
            frontier=["missing"],
            retained=["nowhere"],
            targets={"code": 3.0},
        )
    )
    assert "static, seed 1: given 2 times: keep one of them" in message
    assert "long, seed 2: 2000 tokens, but static, seed 1 has 1000: train both for the same budget" in message
    assert "long, seed 2: 20 steps, but static, seed 1 has 10" in message
    assert "lacking, seed 3: final losses lack ['general', 'papers'] and have unknown ['other']" in message
    assert "frontier names 'missing', which has no run: train it" in message
    assert "retained: ['nowhere'] are no domains: choose compare.retained from ['code', 'general'" in message
    assert "targets: lack ['general', 'papers']: rerun" in message


def test_a_missing_baseline_and_losses_that_are_not_finite_are_refused() -> None:
    assert "baseline 'static' has no run: train it, or choose the baseline from ['other']" in refusal(
        comparison(run("other", 1, losses(3, 4, 5)))
    )
    good = run("static", 1, losses(3, 4, 5))
    bad = good.result.model_copy(update={"final": losses(3, float("nan"), 5)})
    message = refusal(comparison().model_copy(update={"runs": [good.model_copy(update={"result": bad})]}))
    assert "static, seed 1: losses of ['general'] are not finite" in message
    assert "baseline 'static' has no run" in refusal(comparison())


def numbers(summary: ComparisonSummary) -> list[object]:
    return [
        (each.label, each.runs, each.metrics, each.differences, each.losses, each.loss_differences, each.distances)
        for each in summary.strategies.values()
    ]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(9)))
def test_the_order_of_runs_changes_nothing(order: list[int]) -> None:
    data = samples.three_seeds()
    assert numbers(summarise(data)) == numbers(
        summarise(samples.three_seeds(runs=[data.runs[index] for index in order]))
    )


@settings(max_examples=6, deadline=None)
@given(st.permutations([1, 2, 3]))
def test_names_of_seeds_change_no_mean(seeds: list[int]) -> None:
    data = samples.three_seeds()
    renamed = [each.model_copy(update={"seed": seeds[each.seed - 1]}) for each in data.runs]
    before = summarise(data).strategies
    for label, strategy in summarise(samples.three_seeds(runs=renamed)).strategies.items():
        for name, found in strategy.differences.items():
            expected = before[label].differences[name]
            assert found == (expected if expected is None else pytest.approx(expected))


def test_labels_under_which_domains_were_overfitted_are_named_with_their_seeds() -> None:
    low, high = losses(3.0, 4.2, 5.1), losses(3.2, 4.2, 5.1)
    more = {0: losses(0.3, 0.3, 0.4), 3: losses(0.6, 0.2, 0.2)}
    runs = [run(label, seed, high, points={300: low}) for label in ("static", "mine") for seed in (1, 2)]
    runs[2] = run("mine", 1, high, points={300: low}, weights=more)
    assert "overfitting: code under mine (1 of 2 seeds)." in outcome(summarise(comparison(*runs)))
    assert "overfitting: code under mine (1 of 1 seed)." in outcome(summarise(comparison(runs[0], runs[2])))
    assert "overfitting" not in outcome(summarise(samples.three_seeds()))
