"""The head of every architecture: found without its weights, and used for logits in chunks wherever it is linear."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, shape_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import LENGTH, VOCABULARY, llama
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from velocitune_core.model.head import LinearHead, linear_head
from velocitune_core.model.loss import NextTokenLoss

HEADS = {"gemma2": LinearHead(cap=2.0), "cohere": LinearHead(scale=0.5), "granite": LinearHead(scale=1 / 3)}
WIDE = 96  # tokens: more than any hidden state has elements
TOKENS = torch.randint(1, VOCABULARY, (4, LENGTH), generator=torch.Generator().manual_seed(0))
PREDICTIONS = TOKENS[:, 1:].numel()


def model_of(name: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(shape_of(name, **changes)).eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_made_in_chunks(name: str) -> None:
    """No tensor that autograd keeps has all logits, and loss and gradients are transformers' own."""
    model, sizes = model_of(name, vocab_size=WIDE), []
    assert linear_head(model) == HEADS.get(name, LinearHead())

    def note(kept: Tensor) -> Tensor:
        sizes.append(kept.numel())
        return kept

    own = model(input_ids=TOKENS, labels=TOKENS).loss
    expected = torch.autograd.grad(own, list(model.parameters()))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        nats = NextTokenLoss(model, logits_at_once=10 * WIDE)(TOKENS)
    assert max(sizes) < PREDICTIONS * WIDE
    torch.testing.assert_close(nats.mean(), own)
    for ours, theirs in zip(torch.autograd.grad(nats.mean(), list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@settings(max_examples=25)
@given(scale=st.floats(0.01, 100), cap=st.none() | st.floats(0.5, 100))
def test_any_scale_and_cap_are_found(scale: float, cap: float | None) -> None:
    model = model_of("gemma2", final_logit_softcapping=cap)
    plain = model.lm_head.forward
    found = None
    model.lm_head.register_forward_hook(lambda module, given, products: products * scale)
    found = linear_head(model)
    assert model.lm_head.forward == plain, "the probe leaves nothing behind"
    assert found is not None
    assert found.scale == pytest.approx(scale) and found.cap == (None if cap is None else pytest.approx(cap))


def test_a_head_is_found_without_weights() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape_of("gemma2"))
    assert linear_head(model) == HEADS["gemma2"]


class Normalised(torch.nn.Linear):
    """An output matrix and more, as a subclass."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.normalize(input, dim=-1))


def test_a_model_with_another_head_computes_its_logits_itself() -> None:
    subclassed, hooked = llama(), llama()
    subclassed.lm_head = Normalised(16, VOCABULARY, bias=False)
    hooked.lm_head.register_forward_hook(lambda module, given, products: products / products.norm(dim=-1, keepdim=True))
    for model in (subclassed.eval(), hooked.eval()):
        assert linear_head(model) is None
        loss = NextTokenLoss(model, logits_at_once=VOCABULARY)
        torch.testing.assert_close(loss(TOKENS).mean(), model(input_ids=TOKENS, labels=TOKENS).loss)


def test_the_model_is_as_it_was_after_the_probe() -> None:
    model = llama().train()
    before = model(input_ids=TOKENS).logits
    linear_head(model)
    assert model.training and "forward" not in vars(model.lm_head) and "forward" not in vars(model.base_model)
    assert torch.equal(model(input_ids=TOKENS).logits, before)
