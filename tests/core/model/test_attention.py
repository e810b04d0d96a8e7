"""Attention whose gradients are computed in float32: the losses of transformers' own, and gradients that are nearer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import LENGTH
from torch import Tensor
from torch.nn import Module
from torch.testing import assert_close
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from velocitune_core.config import Execution, Training
from velocitune_core.model.attention import NARROW, attention, differentiate_in_float32
from velocitune_core.model.io import load_model
from velocitune_core.parallel.ranks import SINGLE_RANK, leave_ranks
from velocitune_core.train.learner import Learner

SCALE = 0.3


def marked() -> Any:
    """An attention module of a model that was prepared."""
    module = Module()
    module.is_causal = True  # type: ignore[assignment]
    differentiate_in_float32(module)  # type: ignore[arg-type]  # it looks at modules only
    return module


def states(width: int = NARROW, heads: int = 3, length: int = 40) -> tuple[Tensor, ...]:
    """Query, key and value (4, heads, length, width) as views of (4, length, heads, width), as models make them."""
    random = torch.Generator().manual_seed(width)
    made = (torch.randn(4, length, heads, width, generator=random) for _ in range(3))
    return tuple((2 * each).bfloat16().transpose(1, 2).requires_grad_() for each in made)


def document_mask(length: int = 40) -> Tensor:
    """(4, 1, length, length): causal, inside documents of ten tokens."""
    numbers = torch.arange(length) // 10
    return ((numbers[:, None] == numbers) & torch.ones(length, length).tril().bool()).expand(4, 1, -1, -1)


def gradients(output: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output.dtype)
    return torch.autograd.grad(output, inputs, weights)


def distance(ones: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> float:
    return sum(float((one.double() - other).norm() / other.norm()) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize("mask", [None, document_mask()], ids=["causal", "documents"])
def test_outputs_are_the_same_bits_and_gradients_are_nearer_to_exact_ones(mask: Tensor | None) -> None:
    inputs, module = states(), marked()
    exact = tuple(each.detach().double().requires_grad_() for each in inputs)
    output, _ = attention(module, *inputs, mask, scaling=SCALE, dropout=0.0)
    theirs, _ = sdpa_attention_forward(module, *inputs, mask, scaling=SCALE)
    truth = F.scaled_dot_product_attention(*exact, attn_mask=mask, is_causal=mask is None, scale=SCALE)
    assert torch.equal(output, theirs)
    expected = gradients(truth.transpose(1, 2), exact)
    found = gradients(output, inputs)
    assert distance(found, expected) < distance(gradients(theirs, inputs), expected) < 0.05
    assert [each.dtype for each in found] == [torch.bfloat16] * 3


OTHERS: dict[str, tuple[int, dict[str, Any]]] = {  # heads' width, and what differs
    "wide heads": (2 * NARROW, {}),
    "not causal": (NARROW, {"is_causal": False}),
    "float32": (NARROW, {"dtype": torch.float32}),
    "fewer keys": (NARROW, {"groups": 3}),
    "dropout": (NARROW, {"dropout": 0.1}),
    "a mask of numbers": (NARROW, {"mask": torch.zeros(4, 1, 40, 40, dtype=torch.bfloat16)}),
    "another layout": (NARROW, {"strided": True}),
}


@pytest.mark.parametrize(("width", "change"), OTHERS.values(), ids=OTHERS)
def test_everything_else_is_left_to_transformers(width: int, change: dict[str, Any]) -> None:
    module = marked()
    query, key, value = (each.to(change.get("dtype", each.dtype)) for each in states(width))
    if "groups" in change:
        module.num_key_value_groups = change["groups"]
        key, value = key[:, :1], value[:, :1]
    if "strided" in change:
        query, key, value = (torch.stack([each, each], -1)[..., 0] for each in (query, key, value))
    settings = {"is_causal": change.get("is_causal"), "scaling": SCALE, "dropout": change.get("dropout", 0.0)}
    inputs, mask = (query, key, value), change.get("mask")
    found = []
    for function in (attention, sdpa_attention_forward):
        torch.manual_seed(0)  # of dropout
        output, _ = function(module, *inputs, mask, **settings)
        found.append((output, gradients(output, inputs)))
    (ours, own_gradients), (theirs, their_gradients) = found
    assert not any("_AttentionBackward" in name for name in names(ours))
    assert torch.equal(ours, theirs)
    assert_close(own_gradients, their_gradients, rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_uses_it_in_bfloat16_only(tiny_inputs: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is loaded beside it, as a held-out loss needs one, keeps transformers' own function."""
    monkeypatch.setattr(AttentionInterface, "_global_mapping", dict(AttentionInterface._global_mapping))
    settings = Training.model_validate(
        {"batch_sequences": 2, "precision": precision, "optimizer": {"learning_rate": 0.01}}
    )
    learner = Learner(str(tiny_inputs / "model"), settings, Execution(), SINGLE_RANK)
    rows = torch.arange(2 * LENGTH).view(2, LENGTH)
    nodes = names(learner._loss(rows))
    leave_ranks()
    assert any("_Attention" in each for each in nodes) == (precision == "bfloat16")
    other: PreTrainedModel = load_model(str(tiny_inputs / "model")).bfloat16()
    assert not any("_AttentionBackward" in each for each in names(other(input_ids=rows).logits))


def names(output: Tensor) -> set[str]:
    """The names of all nodes of the graph of a tensor."""
    found, open_nodes = {}, [output.grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        if node is not None and node not in found:
            found[node] = node.name()
            open_nodes += [each for each, _ in node.next_functions]
    return set(found.values())
