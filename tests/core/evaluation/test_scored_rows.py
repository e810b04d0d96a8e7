"""Losses of rows of any lengths, however they are batched and dealt to ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny import LENGTH, VOCABULARY, llama
from torch import nn

from velocitune_core.evaluation.scored_rows import ScoredRow, row_nats
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.parallel.ranks import SINGLE_RANK, Ranks


class BigramLoss(nn.Module):
    """−log p(next | last) from a table, so that every value can be computed by hand."""

    table = torch.tensor(
        [[0.5, 0.25, 0.125, 0.125], [0.25] * 4, [0.125, 0.125, 0.25, 0.5], [0.0625, 0.0625, 0.125, 0.75]]
    )

    def packed(self, rows: torch.Tensor) -> bool:
        return False

    def forward(self, sequences: torch.Tensor, packed: bool) -> torch.Tensor:
        return -self.table.log()[sequences[:, :-1], sequences[:, 1:]]


def row(*tokens: int, scored: int) -> ScoredRow:
    return ScoredRow(tokens, scored)


def sharp_rows(count: int) -> list[ScoredRow]:
    """Rows of random lengths, of which some last tokens are scored."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        length = int(random.integers(2, LENGTH + 1))
        rows.append(row(*random.integers(VOCABULARY, size=length).tolist(), scored=int(random.integers(1, length))))
    return rows


@pytest.fixture(scope="module")
def loss() -> nn.Module:
    model = llama()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(40)  # random parameters give nearly uniform predictions: make them sharp
    return NextTokenLoss(model).eval()


def test_the_last_tokens_alone_are_scored_by_hand() -> None:
    rows = [row(0, 1, scored=1), row(3, 0, 0, 2, 3, scored=3), row(1, 2, scored=1)]
    found = row_nats(BigramLoss(), rows, SINGLE_RANK)
    bits = [2, 1 + 3 + 1, 2]  # p = 1/4; 1/2, 1/8, 1/2; 1/4
    assert found == pytest.approx([each * math.log(2) for each in bits])


def test_rows_of_different_lengths_have_the_values_that_each_has_by_itself(loss: nn.Module) -> None:
    rows = sharp_rows(23)
    together = row_nats(loss, rows, SINGLE_RANK)
    for each, nats in zip(rows, together, strict=True):
        with torch.no_grad():
            logits = loss.model(input_ids=torch.tensor([list(each.tokens)])).logits[0].double().numpy()
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        scored = range(len(each.tokens) - each.scored, len(each.tokens))
        assert nats == pytest.approx(-sum(math.log(p[at - 1, each.tokens[at]]) for at in scored), rel=1e-5)
    assert sum(together) > 1.2 * math.log(VOCABULARY) * sum(each.scored for each in rows)  # far from uniform


@pytest.mark.parametrize("count", [2, 5, 40])
def test_each_rank_adds_the_rows_that_are_its_own(loss: nn.Module, count: int) -> None:
    """With forty ranks, seventeen have no row and add nothing."""

    class Recording(Ranks):
        def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
            return values

    rows = sharp_rows(23)
    parts = [row_nats(loss, rows, Recording(rank, count, torch.device("cpu"))) for rank in range(count)]
    assert np.sum(parts, axis=0) == pytest.approx(row_nats(loss, rows, SINGLE_RANK), rel=1e-5)
    assert np.count_nonzero(parts, axis=0).tolist() == [1] * 23


def test_no_gradient_is_kept(loss: nn.Module) -> None:
    row_nats(loss, sharp_rows(3), SINGLE_RANK)
    assert all(parameter.grad is None for parameter in loss.parameters())
