"""Layers, parameters and dropout of models of several families."""

from __future__ import annotations

import pytest
import torch
from tiny import LENGTH, VOCABULARY, llama
from transformers import GPT2Config, GPT2LMHeadModel

from velocitune_core.model.modules import count_parameters, transformer_layers, turn_dropout_off


@pytest.fixture
def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=3, n_head=2))


def test_layers_are_the_stacked_blocks(gpt2: GPT2LMHeadModel) -> None:
    model = llama()
    assert transformer_layers(model) == list(model.model.layers)
    assert transformer_layers(gpt2) == list(gpt2.transformer.h)


def test_tied_parameters_count_once_and_frozen_ones_not_at_all() -> None:
    # embedding 64·16; two layers of 4·16² + 3·16·32 + 2·16; the last norm 16
    model = llama()
    assert count_parameters(model) == 64 * 16 + 2 * (4 * 16**2 + 3 * 16 * 32 + 2 * 16) + 16
    model.model.norm.weight.requires_grad_(False)
    assert count_parameters(model) == 64 * 16 + 2 * (4 * 16**2 + 3 * 16 * 32 + 2 * 16)


def test_without_dropout_training_mode_computes_what_eval_mode_does(gpt2: GPT2LMHeadModel) -> None:
    tokens = torch.arange(LENGTH)[None]
    with torch.no_grad():
        expected = gpt2.eval()(tokens).logits
        assert not torch.allclose(gpt2.train()(tokens).logits, expected, atol=1e-3)
        assert "Dropout" in turn_dropout_off(gpt2)
        torch.testing.assert_close(gpt2.train()(tokens).logits, expected)
    assert turn_dropout_off(gpt2) == []
    assert gpt2.config.resid_pdrop == 0.1


def test_attention_dropout_that_is_no_module_is_turned_off_too() -> None:
    model = llama()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    assert turn_dropout_off(model) == ["LlamaAttention"]
    assert {layer.self_attn.attention_dropout for layer in model.model.layers} == {0.0}
