"""Numbers and lists as text, and the placement of labels."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.style.figure import label, largest, spread
from velocitune_core.style.text import (
    amount_text,
    counted,
    difference_text,
    duration,
    limit_text,
    listed,
    percent,
    signed,
    significant,
    tick_text,
    tokens_text,
)


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
    assert tokens_text(tokens) == text


def test_small_shares_are_not_shown_as_zero() -> None:
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


def test_labels_are_shortened_and_not_read_as_mathematics() -> None:
    assert label("a" * 30, 10) == "a" * 9 + "…"
    assert label("$x$") == r"\$x\$"


def test_significant_digits_need_no_power_of_ten() -> None:
    numbers = [significant(number, 2) for number in (297.0, 1.23e6, 30.4, 5.23, 0.0351, 9.96)]
    assert numbers == ["300", "1,200,000", "30", "5.2", "0.035", "10"]


def test_things_are_counted_in_words() -> None:
    words = [counted(*each) for each in ((1, "seed"), (0, "seed"), (2, "strategy"), (1, "strategy"), (3, "process"))]
    assert words == ["1 seed", "0 seeds", "2 strategies", "1 strategy", "3 processes"]
    assert (counted(12_000, "day"), counted(2, "copy")) == ("12,000 days", "2 copies")


def test_signed_numbers_have_a_true_minus_and_zero_has_no_sign() -> None:
    assert [signed(number, 2) for number in (-0.5, 0.0, 12.345)] == ["−0.50", "0.00", "+12.35"]
    assert [signed(number, 3) for number in (-0.0004, 0.0004, -0.0, 0.0006)] == ["0.000", "0.000", "0.000", "+0.001"]


def test_a_difference_that_rounds_to_zero_is_less_than_its_last_digit() -> None:
    assert [difference_text(number) for number in (-0.0004, 0.0, 0.012)] == [
        "less than 0.001",
        "less than 0.001",
        "+0.012",
    ]
    assert difference_text(-0.04, 1) == "less than 0.1"
    assert [amount_text(number, 4) for number in (0.0012, -0.0012, 0.00001)] == [
        "0.0012",
        "−0.0012",
        "less than 0.0001",
    ]
    assert [limit_text(number) for number in (0.05, -0.05, -0.0, 1e-15, 2.0)] == ["+0.05", "−0.05", "0", "0", "+2"]


@given(st.floats(-1e3, 1e3), st.integers(1, 6))
def test_no_sentence_says_zero_or_minus_zero(number: float, digits: int) -> None:
    for text in (difference_text(number, digits), amount_text(number, digits)):
        assert text.startswith("less than ") or float(text.replace("−", "-")) != 0
    assert float(signed(number, digits).replace("−", "-")) or signed(number, digits)[0] == "0"


def test_long_lists_are_cut() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(list("abcdef"), at_most=3) == "a, b, c and 3 more"


@pytest.mark.parametrize(
    ("seconds", "text", "rough"),
    [
        (4.24, "4.2 s", "4 s"),
        (48, "48 s", "48 s"),
        (350, "5 min 50 s", "5.8 min"),
        (11_220, "3 h 07 min", "3.1 h"),
        (187_200, "2 d 4 h", "2.2 days"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str, rough: str) -> None:
    assert duration(seconds) == text
    assert duration(seconds, rough=True) == rough
