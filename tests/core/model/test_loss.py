"""The loss of each prediction: equal to the model's own, in chunks or at once, with equal gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import LENGTH, VOCABULARY, llama
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel

from velocitune_core.model.loss import NextTokenLoss

SEQUENCES = torch.randint(VOCABULARY, (5, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> LlamaForCausalLM:
    model = llama()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(40)  # random parameters give nearly uniform predictions: make them sharp
    return model


def plain(model: PreTrainedModel) -> Tensor:
    """Return nats from the model's own logits, (5, LENGTH − 1)."""
    logits = model(input_ids=SEQUENCES, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), SEQUENCES[:, 1:], reduction="none")


@pytest.mark.parametrize("tokens_at_once", [1, 7, 74, 75, 1000])  # of 75 predictions
def test_chunks_change_neither_losses_nor_gradients(model: LlamaForCausalLM, tokens_at_once: int) -> None:
    expected = plain(model)
    expected.sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    nats = NextTokenLoss(model, logits_at_once=tokens_at_once * VOCABULARY)(SEQUENCES)
    nats.sum().backward()
    assert nats.shape == (5, LENGTH - 1)
    torch.testing.assert_close(nats, expected)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


def test_with_chunks_few_logits_are_kept_for_the_backward_pass(model: LlamaForCausalLM) -> None:
    """With chunks, no tensor that autograd keeps has all logits."""

    def largest(loss: NextTokenLoss) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda kept: (sizes.append(kept.numel()), kept)[1], lambda x: x):
            loss(SEQUENCES)
        return max(sizes)

    assert largest(NextTokenLoss(model)) == 75 * VOCABULARY
    assert largest(NextTokenLoss(model, logits_at_once=10 * VOCABULARY)) < 75 * VOCABULARY


def test_the_models_mode_is_kept(model: LlamaForCausalLM) -> None:
    assert not NextTokenLoss(model.eval()).training and not model.training
    assert NextTokenLoss(model.train()).training and model.training


def test_a_last_hidden_state_in_float32_meets_a_head_in_bfloat16(model: LlamaForCausalLM) -> None:
    """As Mamba's last norm gives it."""
    loss = NextTokenLoss(model)
    expected = loss(SEQUENCES)
    model.bfloat16()
    model.model.norm.register_forward_hook(lambda module, given, hidden: hidden.float())
    torch.testing.assert_close(loss(SEQUENCES), expected, rtol=0.05, atol=0.05)
