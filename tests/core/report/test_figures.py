"""Figures: what they say and that they hold for few and many domains; never pixels."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
import result_samples as samples
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from velocitune_core.contracts import DomainTarget, Law, OtherLaw, Targets
from velocitune_core.report import figures
from velocitune_core.report.figures.style import largest, percent, spread, tick_text


def words(figure: Figure) -> str:
    """All visible text of a figure, once it is drawn."""
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def test_colours_follow_names_and_not_the_order_they_come_in() -> None:
    colours = figures.domain_colours(["papers", "code", "legal"])
    assert colours == figures.domain_colours(["legal", "papers", "code"])
    assert len(set(figures.domain_colours(samples.many(15)).values())) == 15
    assert len(figures.domain_colours(samples.many(40))) == 40


def test_a_domain_has_one_colour_in_all_figures() -> None:
    code = figures.domain_colours(samples.SEVEN)["code"]
    row = sorted(samples.SEVEN).index("code")
    losses = figures.loss_per_domain(samples.train(), samples.initial()).axes[row]
    laws = figures.laws(samples.targets()).axes[row]
    assert code in {line.get_color() for line in losses.lines}
    assert code in {line.get_color() for line in laws.lines}


@pytest.mark.parametrize("count", [1, 13, 30])
def test_every_figure_draws_for_few_and_many_domains(count: int) -> None:
    domains = samples.many(count)
    train, initial, targets = samples.train(domains), samples.initial(domains), samples.targets(domains)
    proxies = samples.proxies(domains)
    last = sorted(domains)[-1]
    assert last in words(figures.loss_per_domain(train, initial, targets))
    assert last in words(figures.laws(targets, proxies, train.final))
    assert last in words(figures.predicted_against_reached(targets, train))
    assert last in words(figures.tokens_and_epochs(train, samples.manifest(domains)))
    for figure in (figures.weights_over_time(train), figures.velocity_per_domain(train)):
        assert ("others" in words(figure)) == (count > 12)


def test_weights_are_labelled_with_original_and_final_share() -> None:
    text = words(figures.weights_over_time(samples.train()))
    assert "code  33.4 % → 21.0 %" in text
    assert "general  6.6 % → 0.4 %" in text


def test_weights_begin_with_the_original_ones() -> None:
    train = samples.train()
    late = train.model_copy(update={"domain_weights": train.domain_weights[5:]})
    original = {name: row[0] for name, row in samples.SEVEN.items()}
    assert "code  33.4 % → 21.0 %" in words(figures.weights_over_time(late, original))
    nothing = train.model_copy(update={"domain_weights": []})
    assert "recorded no weights" in words(figures.weights_over_time(nothing))


def test_velocity_says_so_where_there_is_none() -> None:
    assert "“static” measures no velocity" in words(figures.velocity_per_domain(samples.train(strategy="static")))
    text = words(figures.velocity_per_domain(samples.train()))
    assert "1 = nothing learnt yet, 0 = at target" in text
    assert "code  0.00" in text


def test_losses_name_the_domain_that_got_worse() -> None:
    text = words(figures.loss_per_domain(samples.train(), samples.initial(), samples.targets()))
    assert "general  4.710 (worse)" in text
    assert "code  3.300\n" in text
    assert "target loss" not in words(figures.loss_per_domain(samples.train(), samples.initial()))


def test_laws_write_flags_and_admit_targets_without_evidence() -> None:
    text = words(figures.laws(samples.targets(), samples.proxies()))
    assert text.count("above initial") == 1
    assert "95 % interval" in text
    mixed = samples.targets().domains | {"code": DomainTarget(target=3.0)}
    assert words(figures.laws(Targets(domains=mixed))).count("given by hand") == 1
    assert "no law to show" in words(figures.laws(samples.targets_by_hand()))


def test_the_law_is_drawn_to_its_target_at_the_budget() -> None:
    panel = figures.laws(samples.targets()).axes[sorted(samples.SEVEN).index("code")]
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
    figure = figures.laws(targets.model_copy(update={"domains": both}))
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
    panel = figures.laws(targets.model_copy(update={"domains": targets.domains | {"code": wild}})).axes[2]
    low, high = panel.get_ylim()
    assert panel.get_title(loc="left").startswith("code")
    assert 2.5 < low < 3.38
    assert 3.73 < high < 4.5


def test_errors_are_relative_to_the_reached_loss() -> None:
    text = words(figures.predicted_against_reached(samples.targets(), samples.train()))
    assert "+2.4 %" in text  # code: (3.38 − 3.30) / 3.30
    easier = samples.train().model_copy(update={"final": dict.fromkeys(samples.SEVEN, 4.0)})
    assert "−15.5 %" in words(figures.predicted_against_reached(samples.targets(), easier))  # code: −0.62 / 4


def test_tokens_carry_epochs() -> None:
    text = words(figures.tokens_and_epochs(samples.train(), samples.manifest()))
    assert "408 k, 0.81 epochs" in text  # code: 1.5 M · (0.334 + 0.21) / 2, of 501 k


def test_cost_rows_of_the_training_add_up_to_its_wall_time() -> None:
    rows = figures.cost_rows(samples.train(), samples.proxies(), samples.train(), samples.initial())
    assert sum(row.seconds for row in rows if row.in_training) == pytest.approx(200.0)
    tokens = {row.name: row.tokens for row in rows}
    assert tokens["proxies (3 runs)"] == 1_312_500  # 7/8 of the budget
    assert tokens["evaluation"] == 7 * 4096 * 30
    assert tokens["reweighting"] is None
    text = words(figures.cost(samples.train(), samples.proxies(), samples.train(), samples.initial()))
    assert "base model" in text
    assert "1.31 M" in text


def test_a_name_with_dollar_signs_is_drawn_as_it_is() -> None:
    domains = {r"$\nonsense$": samples.SEVEN["code"]}
    words(figures.tokens_and_epochs(samples.train(domains), samples.manifest(domains)))


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_500_000, "1.5 M"),
        (52_450, "52.5 k"),
        (999_999, "1 M"),
        (3e9, "3 G"),
        (2.5e12, "2.5 T"),
    ],
)
def test_tokens_text(tokens: float, text: str) -> None:
    assert figures.tokens_text(tokens) == text


def test_small_numbers_keep_their_meaning() -> None:
    assert tick_text(1_250_000) == "1.25 M"
    assert percent(0.334) == "33.4 %"
    assert percent(0.0) == "0.0 %"
    assert percent(0.0001) == "< 0.1 %"


def test_largest_folds_only_beyond_the_limit() -> None:
    assert largest({"b": 0.5, "a": 0.5}, at_most=2) == ["a", "b"]
    assert largest({"a": 0.1, "b": 0.6, "c": 0.3}, at_most=2) == ["b"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_spread_labels_keep_order_and_distance(positions: list[float]) -> None:
    gap = 1 / 20
    moved = spread(positions, gap, 0.0, 1.0)
    assert all(-1e-9 <= position <= 1 + 1e-9 for position in moved)
    assert all(after - before >= gap - 1e-9 for before, after in pairwise(sorted(moved)))
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    assert [moved[index] for index in order] == sorted(moved)
