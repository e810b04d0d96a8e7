"""The split by hash: a function of the text alone, monotone in the fraction."""

import hashlib
import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.data.splits import document_digest, is_held_out, measured_digest


def test_digest_by_hand_and_its_normalisation():
    assert document_digest("a b") == hashlib.blake2b(b"a b", digest_size=16).digest()
    assert document_digest(" a\r\n\tb ") == document_digest("a b")
    assert document_digest(unicodedata.normalize("NFD", "é ü")) == document_digest("é ü")
    assert document_digest("ab") != document_digest("a b")


@given(st.binary(min_size=16, max_size=16), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_holds_out_what_a_smaller_one_does(digest, one, other):
    low, high = sorted((one, other))
    assert is_held_out(digest, low) <= is_held_out(digest, high)
    assert not is_held_out(digest, 0.0)
    assert is_held_out(digest, 1.0)


@given(st.sets(st.text(st.characters(exclude_categories=["Cs"])), max_size=20), st.floats(0.01, 0.99))
def test_adding_documents_moves_none_across(documents, fraction):
    def splits(chosen):
        return {text: is_held_out(document_digest(text), fraction) for text in chosen}

    some = set(list(documents)[: len(documents) // 2])
    assert splits(some).items() <= splits(documents).items()


def test_held_out_share_is_about_the_fraction():
    held_out = sum(is_held_out(document_digest(f"text {i}"), 0.1) for i in range(10_000))
    assert abs(held_out - 1000) < 4 * np.sqrt(10_000 * 0.1 * 0.9)


def test_the_threshold_by_hand():
    half = bytes([128]) + bytes(15)  # the first 8 bytes are 2^63, half of 2^64
    below = bytes([127]) + bytes([255] * 7) + bytes(8)
    assert not is_held_out(half, 0.5)
    assert is_held_out(below, 0.5)
    assert is_held_out(half, 0.5 + 2**-53)


SAMPLES = [
    " ",
    "\n",
    "\u2003",
    "a",
    "e",
    "\u0301",
    "\u0323",
    "\u1100",
    "\u1161",
    "\u11a8",
    "\u0cc6",
    "\u0cd5",
    "é",
    "字",
]


@given(st.lists(st.sampled_from(SAMPLES), max_size=30) | st.lists(st.text(max_size=3)), st.integers(1, 5))
def test_the_digest_of_parts_is_that_of_the_whole(characters, size):
    text = "".join(characters).encode(errors="ignore").decode()
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    assert measured_digest(parts) == (document_digest(text), len(text.strip()))
