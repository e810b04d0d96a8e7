"""Bits per byte of gold answers: the score, and what fits into the context."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import LENGTH, VOCABULARY, llama

from velocitune_core.contracts import Question
from velocitune_core.evaluation.benchmark_tasks import DownstreamError
from velocitune_core.evaluation.bits_per_byte import check_vocabulary, encode
from velocitune_core.evaluation.measured_sets import MeasuredRows
from velocitune_core.evaluation.scored_rows import ScoredRow, row_nats
from velocitune_core.model.build import train_tokenizer
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.parallel.ranks import SINGLE_RANK

BYTES = train_tokenizer(["the answer is that the sum of the two is four"] * 9, 300)


def question(context: str = "2 + 2 =", continuation: str = " four") -> Question:
    return Question(identifier="sums#0", context=context, continuation=continuation)


def test_a_uniform_model_has_the_log_of_its_vocabulary_per_token(tiny_inputs: Path) -> None:
    model, tokenizer = llama(), load_tokenizer(str(tiny_inputs / "model"))
    with torch.no_grad():
        model.lm_head.weight.zero_()
    each = encode(question("word1 word2", " word5 word6 word7"), tokenizer, LENGTH)
    nats = row_nats(NextTokenLoss(model), [each], SINGLE_RANK)
    found = MeasuredRows(["sums"], [0], [each]).sums(nats)["sums"]
    assert (found.tokens, found.bytes) == (3, 18)
    assert found.bits_per_byte == pytest.approx(3 * math.log2(VOCABULARY) / 18, rel=1e-6)


def test_the_whole_answer_is_kept_after_the_end_of_its_context() -> None:
    context, answer = "Ten birds. " * 20 + "How many?", " Ten birds"
    ids = BYTES(context)["input_ids"], BYTES(answer)["input_ids"]
    each = encode(question(context, answer), BYTES, 40)
    assert each == ScoredRow(tuple((ids[0] + ids[1])[-40:]), len(ids[1]), len(answer), shortened=False)
    whole = encode(question(context, answer), BYTES, 1000)
    assert whole.tokens == (BYTES.bos_token_id, *ids[0], *ids[1])  # a text begins after end-of-text, as in training
    alone = encode(question("", answer), BYTES, 1000)
    assert alone.tokens == (BYTES.bos_token_id, *ids[1])


def test_a_special_token_that_no_text_has_may_be_beyond_the_embeddings() -> None:
    tokenizer = train_tokenizer(["the answer"] * 9, 300)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<picture>"]})  # as Gemma 3 has
    check_vocabulary(tokenizer, size, "models/mine")
    tokenizer.bos_token = "<picture>"  # with which every question would begin
    with pytest.raises(DownstreamError, match=f"has the token id {size}, and the model embeds only {size} tokens"):
        check_vocabulary(tokenizer, size, "models/mine")
    check_vocabulary(tokenizer, size + 1, "models/mine")
    tokenizer.add_tokens(["another"])
    with pytest.raises(DownstreamError, match=f"has the token id {size + 1}, and the model embeds only {size + 1}"):
        check_vocabulary(tokenizer, size + 1, "models/mine")


def test_an_answer_that_is_too_long_is_cut_at_a_characters_end_and_its_bytes_counted() -> None:
    each = encode(question("x", "€" * 50), BYTES, 12)  # three tokens of a byte each
    assert each.shortened and len(each.tokens) == 2 + 9  # eleven would end inside the fourth character
    assert (each.scored, each.bytes) == (9, 9)
    just = encode(question("x", "abcdefg"), BYTES, len(BYTES("abcdefg")["input_ids"]) + 1)
    assert (just.shortened, just.bytes) == (False, 7)
    over = encode(question("x", "abcdefg"), BYTES, len(BYTES("abcdefg")["input_ids"]))
    assert over.shortened and over.bytes < 7


@given(context=st.text(max_size=60), answer=st.text(min_size=1, max_size=60), window=st.integers(8, 80))
def test_any_text_fits_the_window_and_its_bytes_are_those_of_its_tokens(context: str, answer: str, window: int) -> None:
    each = encode(question(context, answer), BYTES, window)
    assert each.scored < len(each.tokens) <= window
    scored = BYTES.decode(each.tokens[-each.scored :])
    assert answer.startswith(scored) and each.bytes == len(scored.encode())
    assert each.shortened == (scored != answer)
