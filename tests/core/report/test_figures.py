"""Figures: their text and lines, for few and many domains; no comparison of pixels."""

from __future__ import annotations

import pytest
import result_samples as samples
from rendered import words

from velocitune_core.contracts import DomainTarget, Law, OtherLaw, Targets
from velocitune_core.report.figures.cost import cost_rows, time_and_tokens_spent, tokens_and_epochs
from velocitune_core.report.figures.targets import laws, predicted_against_reached
from velocitune_core.report.figures.training import loss_per_domain, velocity_per_domain, weights_over_time
from velocitune_core.style.figure import domain_colours


def test_colours_follow_names_and_not_the_order_they_come_in() -> None:
    colours = domain_colours(["papers", "code", "legal"])
    assert colours == domain_colours(["legal", "papers", "code"])
    assert len(set(domain_colours(samples.many(15)).values())) == 15
    assert len(domain_colours(samples.many(40))) == 40


def test_a_domain_has_one_colour_in_all_figures() -> None:
    code = domain_colours(samples.SEVEN)["code"]
    row = sorted(samples.SEVEN).index("code")
    for figure in (loss_per_domain(samples.train(), samples.initial()), laws(samples.targets())):
        assert code in {line.get_color() for line in figure.axes[row].lines}


@pytest.mark.parametrize("count", [1, pytest.param(13, marks=pytest.mark.slow)])
def test_every_figure_draws_for_few_and_many_domains(count: int) -> None:
    domains = samples.many(count)
    train, initial, targets = samples.train(domains), samples.initial(domains), samples.targets(domains)
    proxies = samples.proxies(domains)
    last = sorted(domains)[-1]
    assert last in words(loss_per_domain(train, initial, targets))
    assert last in words(laws(targets, proxies, train.final))
    assert last in words(predicted_against_reached(targets, train))
    assert last in words(tokens_and_epochs(train, samples.manifest(domains)))
    for figure in (weights_over_time(train), velocity_per_domain(train)):
        assert ("others" in words(figure)) == (count > 12)


def test_weights_are_labelled_with_initial_and_final_weight() -> None:
    text = words(weights_over_time(samples.train()))
    assert "code  33.4 % → 21.0 %" in text
    assert "general  6.6 % → 0.4 %" in text


def test_weights_begin_with_the_initial_ones() -> None:
    train = samples.train()
    late = train.model_copy(update={"domain_weights": train.domain_weights[5:]})
    initial = {name: row[0] for name, row in samples.SEVEN.items()}
    assert "code  33.4 % → 21.0 %" in words(weights_over_time(late, initial))
    nothing = train.model_copy(update={"domain_weights": []})
    elsewhere = dict.fromkeys(initial, 1 / len(initial))  # a search that starts from other weights than w₀
    assert "code  33.4 % → 21.0 %" in words(weights_over_time(train, elsewhere))
    assert "recorded no weights" in words(weights_over_time(nothing))


def test_a_strategy_without_velocity_gets_a_notice() -> None:
    assert "“static” measures no velocity" in words(velocity_per_domain(samples.train(strategy="static")))
    text = words(velocity_per_domain(samples.train()))
    assert "1 = nothing learnt yet, 0 = at target" in text
    assert "code  0.00" in text


def test_losses_name_the_domain_that_got_worse() -> None:
    text = words(loss_per_domain(samples.train(), samples.initial(), samples.targets()))
    assert "general  4.710 (worse)" in text
    assert "code  3.300\n" in text
    overfitted = samples.overfitted("general", "cli")
    text = words(loss_per_domain(overfitted, samples.initial(), samples.targets()))
    assert "general  4.710 (worse, overfitted)" in text and "cli  3.200 (overfitted)" in text
    assert "target loss" not in words(loss_per_domain(samples.train(), samples.initial()))


def test_laws_show_flags_and_targets_without_evidence() -> None:
    text = words(laws(samples.targets(), samples.proxies()))
    assert text.count("above initial") == 1
    assert "95 % interval" in text
    mixed = samples.targets().domains | {"code": DomainTarget(target=3.0)}
    assert words(laws(Targets(domains=mixed))).count("written by hand") == 1
    assert "no law to show" in words(laws(samples.targets_by_hand()))


def test_the_law_is_drawn_to_its_target_at_the_budget() -> None:
    panel = laws(samples.targets()).axes[sorted(samples.SEVEN).index("code")]
    extrapolated = next(line for line in panel.lines if line.get_linestyle() == "--")
    assert list(extrapolated.get_xdata())[-1] == samples.BUDGET
    assert list(extrapolated.get_ydata())[-1] == pytest.approx(3.38)


def test_both_laws_are_drawn_and_the_one_not_chosen_is_dotted() -> None:
    targets = samples.targets()
    code = targets.domains["code"]
    assert code.evidence is not None
    chosen = Law(kind="anchored", E=3.0, B=600.0, beta=0.5, D0=1e5)
    other = OtherLaw(law=code.evidence.law, target=3.38, leave_largest_out_error=0.012)
    evidence = code.evidence.model_copy(update={"law": chosen, "other_law": other})
    both = targets.domains | {"code": code.model_copy(update={"evidence": evidence})}
    figure = laws(targets.model_copy(update={"domains": both}))
    panel = figure.axes[sorted(samples.SEVEN).index("code")]
    last = {line.get_linestyle(): list(line.get_ydata())[-1] for line in panel.lines if len(line.get_xdata()) == 100}
    assert last["--"] == pytest.approx(3.0 + 600.0 * (samples.BUDGET + 1e5) ** -0.5)
    assert last[":"] == pytest.approx(3.38)
    assert "anchored" in words(figure)
    assert "not chosen" in words(figure)


def test_a_very_wide_interval_does_not_flatten_the_panel() -> None:
    targets = samples.targets()
    code = targets.domains["code"]
    assert code.evidence is not None
    wild = code.model_copy(update={"evidence": code.evidence.model_copy(update={"interval": (0.0, 90.0)})})
    panel = laws(targets.model_copy(update={"domains": targets.domains | {"code": wild}})).axes[2]
    low, high = panel.get_ylim()
    assert panel.get_title(loc="left").startswith("code")
    assert 2.5 < low < 3.38
    assert 3.73 < high < 4.5


def test_errors_are_relative_to_the_reached_loss() -> None:
    text = words(predicted_against_reached(samples.targets(), samples.train()))
    assert "+2.4 %" in text  # code: (3.38 − 3.30) / 3.30
    easier = samples.train().model_copy(update={"final": dict.fromkeys(samples.SEVEN, 4.0)})
    assert "−15.5 %" in words(predicted_against_reached(samples.targets(), easier))  # code: −0.62 / 4


def test_tokens_carry_epochs() -> None:
    text = words(tokens_and_epochs(samples.train(), samples.manifest()))
    assert "408 k, 0.81 epochs" in text  # code: 1.5 M · (0.334 + 0.21) / 2, of 501 k


def test_cost_rows_of_the_run_add_up_to_its_wall_time() -> None:
    rows = cost_rows(samples.train(), samples.proxies(), samples.train(), samples.initial())
    assert sum(row.seconds for row in rows if row.in_training) == pytest.approx(200.0)
    tokens = {row.name: row.tokens for row in rows}
    assert tokens["proxies (3 runs)"] == 1_312_500  # 7/8 of the budget
    assert tokens["evaluation"] == 7 * 4096 * 30
    assert tokens["reweighting"] is None
    text = words(time_and_tokens_spent(samples.train(), samples.proxies(), samples.train(), samples.initial()))
    assert "base model" in text
    assert "1.31 M" in text


def test_a_name_with_dollar_signs_is_drawn_as_it_is() -> None:
    domains = {r"$\nonsense$": samples.SEVEN["code"]}
    words(tokens_and_epochs(samples.train(domains), samples.manifest(domains)))
