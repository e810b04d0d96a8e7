"""Shares of tokens as shares of what another trainer draws, and as decimals that sum to 1."""

from __future__ import annotations

from fractions import Fraction

import pytest
from export_samples import mixture
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.export import FORMATS, DomainSize, Mixture, Stage, export
from velocitune_core.export.shares import SMALLEST, as_text, drawn_shares, token_shares

positive = st.floats(1e-7, 1.0)
counts = st.integers(1, 10**6)


@given(st.lists(positive, min_size=1, max_size=30))
def test_written_shares_sum_to_one_and_keep_three_digits(weights: list[float]) -> None:
    total = sum(weights)
    shares = {str(place): weight / total for place, weight in enumerate(weights)} | {"none": 0.0}
    text = as_text(shares)
    assert sum(map(Fraction, text.values())) == 1 and "none" not in text
    assert all("e" not in each for each in text.values())
    assert {name: float(each) for name, each in text.items()} == pytest.approx(
        {name: share for name, share in shares.items() if share}, rel=0.01
    )


@given(st.lists(st.tuples(positive, counts, counts), min_size=1, max_size=20))
def test_documents_of_their_mean_length_give_the_shares_of_the_tokens(rows: list[tuple[float, int, int]]) -> None:
    """Drawing N·p documents of each domain's mean length gives each its share of the tokens."""
    total = sum(weight for weight, *_ in rows)
    shares = {str(place): weight / total for place, (weight, *_) in enumerate(rows)}
    sizes = {str(place): DomainSize(tokens, documents) for place, (_, tokens, documents) in enumerate(rows)}
    drawn = drawn_shares(shares, "documents", sizes)
    tokens = {name: drawn[name] * sizes[name].tokens / sizes[name].documents for name in shares}  # type: ignore[operator]
    assert sum(drawn.values()) == pytest.approx(1)
    assert {name: each / sum(tokens.values()) for name, each in tokens.items()} == pytest.approx(shares)
    assert token_shares(drawn, "documents", sizes) == pytest.approx(shares)


def test_documents_by_hand() -> None:
    """0.5, 0.3, 0.2 of the tokens over 2560, 256 and 25.6 tokens per document: 1 : 6 : 40."""
    text = export(mixture(), FORMATS["datasets"]).block.shares
    assert {name: float(share) for name, share in text.items()} == pytest.approx(
        {"code": 1 / 47, "legal": 6 / 47, "off": 40 / 47}, abs=1e-6
    )


@given(st.lists(st.one_of(positive, st.floats(-300, 0).map(lambda power: 10**power)), min_size=1, max_size=30))
def test_shares_however_small_sum_to_one(weights: list[float]) -> None:
    total = sum(weights)
    shares = {str(place): weight / total for place, weight in enumerate(weights)}
    text = as_text(shares)
    assert sum(map(Fraction, text.values())) == 1 and all(Fraction(each) > 0 for each in text.values())
    for name, share in shares.items():
        assert float(text.get(name, "0")) == pytest.approx(share, rel=0.011, abs=1.01 * SMALLEST * (name not in text))


@pytest.mark.parametrize("to", ["megatron", "nanotron", "json", "levanter"])
def test_a_share_of_almost_nothing_is_left_out_with_a_note(to: str) -> None:
    """In one stage, and in the whole run."""
    late = {"a": 0.5, "b": 0.4, "off": 0.1, "gone": 1e-12, "none": 0.0}
    early = {"a": 0.5, "b": 0.5, "off": 1e-18, "gone": 1e-300, "none": 0.0}
    mean = {name: (early[name] + share) / 2 for name, share in late.items()}
    stages = [Stage(0, early), Stage(20, late)]
    found = export(Mixture(mean, "by hand", stages, steps=40, tokens=40 * 2048, sequence_length=1), FORMATS[to])
    assert [stage.shares for stage in found.block.stages] == [
        {"a": "0.5", "b": "0.5"},
        {"a": "0.5", "b": "0.4", "off": "0.1"},
    ]
    assert list(found.notes)[:2] == [
        "Not drawn, as their weight is 0: none.",
        "Shares of the draws below 1e-09 are taken as 0: gone, off.",
    ]
    assert not [note for note in found.notes if "rounding" in note]
