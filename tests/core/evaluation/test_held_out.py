"""Held-out loss: Σ nats / Σ tokens, independent of batch size and number of ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny import LENGTH, VOCABULARY, llama
from transformers import LlamaForCausalLM

from velocitune_core.evaluation.held_out import evaluate
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.parallel.ranks import SINGLE_RANK, Ranks


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    model = llama()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(40)  # random parameters give nearly uniform predictions: make them sharp
    return model


@pytest.fixture(scope="module")
def held_out() -> dict[str, np.ndarray]:
    """Domains of different sizes, so that batches span them and the last one is short."""
    random = np.random.default_rng(0)
    counts = {"code": 11, "papers": 1, "general": 6}
    return {name: random.integers(VOCABULARY, size=(n, LENGTH), dtype=np.uint16) for name, n in counts.items()}


def losses(model: LlamaForCausalLM, held_out: dict[str, np.ndarray], batch_sequences: int = 4) -> dict[str, float]:
    return evaluate(NextTokenLoss(model), held_out, batch_sequences=batch_sequences, ranks=SINGLE_RANK)


def test_the_loss_is_minus_log_p_of_the_next_token(model: LlamaForCausalLM, held_out: dict[str, np.ndarray]) -> None:
    found = losses(model, held_out)
    for name, rows in held_out.items():
        nats = 0.0
        for row in rows.astype(int):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor(row)[None]).logits[0].double().numpy()
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            nats -= sum(math.log(p[position, row[position + 1]]) for position in range(LENGTH - 1))
        assert found[name] == pytest.approx(nats / (len(rows) * (LENGTH - 1)), abs=1e-5)
    assert list(found) == list(held_out)
    assert max(found.values()) > 1.2 * math.log(VOCABULARY)  # far from uniform


def test_the_batch_size_does_not_matter(model: LlamaForCausalLM, held_out: dict[str, np.ndarray]) -> None:
    expected = losses(model, held_out, 1)
    for batch_sequences in (3, 7, 100):
        assert losses(model, held_out, batch_sequences) == pytest.approx(expected, abs=1e-5)


def test_the_sums_of_several_ranks_add_up(model: LlamaForCausalLM, held_out: dict[str, np.ndarray]) -> None:
    """Each rank sums its own rows; added up they give the loss, also where a rank has fewer rows or none."""

    class Recording(Ranks):
        def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
            return values

    tokens = {name: len(rows) * (LENGTH - 1) for name, rows in held_out.items()}
    loss = NextTokenLoss(model)
    for count in (2, 5, 20):  # with twenty, two have no rows
        shares = [
            evaluate(loss, held_out, batch_sequences=2, ranks=Recording(rank, count, torch.device("cpu")))
            for rank in range(count)
        ]
        together = {name: sum(share[name] for share in shares) for name in tokens}
        assert together == pytest.approx(losses(model, held_out), abs=1e-5)


def test_a_uniform_model_has_the_log_of_its_vocabulary(held_out: dict[str, np.ndarray]) -> None:
    model = llama()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert losses(model, held_out) == pytest.approx(dict.fromkeys(held_out, math.log(VOCABULARY)), abs=1e-6)


def test_evaluation_leaves_the_model_as_it_was(model: LlamaForCausalLM, held_out: dict[str, np.ndarray]) -> None:
    for training in (True, False):
        model.train(training)
        losses(model, held_out)
        assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())
