"""Bits per byte of gold answers: the score, and what fits into the context."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import LENGTH, VOCABULARY, llama
from torch import nn

from velocitune_core.evaluation.benchmark_tasks import DownstreamError, Instance
from velocitune_core.evaluation.bits_per_byte import Encoded, context_window, encode, score
from velocitune_core.model.build import train_tokenizer
from velocitune_core.model.tokenizer import load_tokenizer

CPU = torch.device("cpu")
BYTES = train_tokenizer(["the answer is that the sum of the two is four"] * 9, 300)


def instance(context: str = "2 + 2 =", continuation: str = " four") -> Instance:
    return Instance("sums#0", context, continuation, context)


def encoded(*tokens: int, answer: int, size: int = 1) -> Encoded:
    return Encoded(tokens, answer, size, shortened=False)


class Bigram(nn.Module):
    """p(next | last) from a table, so that every score can be computed by hand."""

    table = torch.tensor(
        [[0.5, 0.25, 0.125, 0.125], [0.25] * 4, [0.125, 0.125, 0.25, 0.5], [0.0625, 0.0625, 0.125, 0.75]]
    )

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table.log()[input_ids])


def test_nats_of_the_answer_alone_by_hand() -> None:
    found = score(
        Bigram(),
        {
            "short": [encoded(0, 1, answer=1, size=2)],
            "long": [encoded(3, 0, 0, 2, 3, answer=3, size=1), encoded(1, 2, answer=1, size=5)],
        },
        batch_tokens=100,
        device=CPU,
    )
    assert found["short"].bits_per_byte == pytest.approx(2 / 2)  # p = 1/4
    assert found["long"].nats == pytest.approx(math.log(2) * (1 + 3 + 1 + 2))  # 1/2, 1/8, 1/2; 1/4
    assert found["long"].bits_per_byte == pytest.approx(7 / 6)  # Σ bits / Σ bytes, not the mean of the two
    assert (found["long"].instances, found["long"].tokens, found["long"].bytes) == (2, 4, 6)


def test_a_uniform_model_has_the_log_of_its_vocabulary_per_token(tiny_inputs: Path) -> None:
    model, tokenizer = llama(), load_tokenizer(str(tiny_inputs / "model"))
    with torch.no_grad():
        model.lm_head.weight.zero_()
    each = encode(instance("word1 word2", " word5 word6 word7"), tokenizer, LENGTH)
    found = score(model, {"sums": [each]}, batch_tokens=64, device=CPU)["sums"]
    assert (found.tokens, found.bytes) == (3, 18)
    assert found.bits_per_byte == pytest.approx(3 * math.log2(VOCABULARY) / 18, rel=1e-6)


@pytest.mark.parametrize("batch_tokens", [1, 40, 1000])
def test_batches_of_different_lengths_agree_with_one_by_one(batch_tokens: int) -> None:
    model, random = llama(), np.random.default_rng(0)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(40)  # random parameters give nearly uniform predictions: make them sharp
    tasks: dict[str, list[Encoded]] = {"sums": [], "code": []}
    for number in range(23):
        length = int(random.integers(2, LENGTH + 1))
        tokens = random.integers(VOCABULARY, size=length).tolist()
        tasks["sums" if number % 3 else "code"].append(encoded(*tokens, answer=int(random.integers(1, length))))
    model.train()
    found = score(model, tasks, batch_tokens=batch_tokens, device=CPU)
    assert model.training
    for task, instances in tasks.items():
        nats = 0.0
        for each in instances:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([each.tokens])).logits[0].double().numpy()
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            answer = range(len(each.tokens) - each.answer_tokens, len(each.tokens))
            nats -= sum(math.log(p[position - 1, each.tokens[position]]) for position in answer)
        assert found[task].nats == pytest.approx(nats, rel=1e-5)
        assert found[task].nats > 1.2 * math.log(VOCABULARY) * found[task].tokens  # far from uniform


def test_no_instances_and_parameters_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DownstreamError, match="sums: no instances"):
        score(Bigram(), {"sums": []}, batch_tokens=9, device=CPU)
    corrupt = Bigram()
    corrupt.table = torch.full((4, 4), torch.nan)
    with pytest.raises(DownstreamError, match="sums: the model gives nan"):
        score(corrupt, {"sums": [encoded(0, 1, answer=1)]}, batch_tokens=9, device=CPU)


def test_the_whole_answer_is_kept_after_the_end_of_its_context() -> None:
    context, answer = "Ten birds. " * 20 + "How many?", " Ten birds"
    ids = BYTES(context)["input_ids"], BYTES(answer)["input_ids"]
    each = encode(instance(context, answer), BYTES, 40)
    assert each == Encoded(tuple((ids[0] + ids[1])[-40:]), len(ids[1]), len(answer), shortened=False)
    whole = encode(instance(context, answer), BYTES, 1000)
    assert whole.tokens == (BYTES.bos_token_id, *ids[0], *ids[1])  # a text begins after end-of-text, as in training
    alone = encode(instance("", answer), BYTES, 1000)
    assert alone.tokens == (BYTES.bos_token_id, *ids[1])


def test_an_answer_that_is_too_long_is_cut_at_a_characters_end_and_its_bytes_counted() -> None:
    each = encode(instance("x", "€" * 50), BYTES, 12)  # three tokens of a byte each
    assert each.shortened and len(each.tokens) == 2 + 9  # eleven would end inside the fourth character
    assert (each.answer_tokens, each.answer_bytes) == (9, 9)
    just = encode(instance("x", "abcdefg"), BYTES, len(BYTES("abcdefg")["input_ids"]) + 1)
    assert (just.shortened, just.answer_bytes) == (False, 7)
    over = encode(instance("x", "abcdefg"), BYTES, len(BYTES("abcdefg")["input_ids"]))
    assert over.shortened and over.answer_bytes < 7


@given(context=st.text(max_size=60), answer=st.text(min_size=1, max_size=60), window=st.integers(8, 80))
def test_any_text_fits_the_window_and_its_bytes_are_those_of_its_tokens(context: str, answer: str, window: int) -> None:
    each = encode(instance(context, answer), BYTES, window)
    assert each.answer_tokens < len(each.tokens) <= window
    scored = BYTES.decode(each.tokens[-each.answer_tokens :])
    assert answer.startswith(scored) and each.answer_bytes == len(scored.encode())
    assert each.shortened == (scored != answer)


def test_the_window_is_the_models_context_up_to_a_limit() -> None:
    assert context_window(llama().config, 2048) == LENGTH
    assert context_window(llama().config, 9) == 9
    assert context_window(SimpleNamespace(), 2048) == 2048
