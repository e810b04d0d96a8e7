"""The tokenizer and the Llama that are made without a pretrained model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.config import Base
from velocitune_core.model.build import END_OF_TEXT, build_llama, draw_parameters, save_untrained, train_tokenizer
from velocitune_core.model.io import UNTRAINED, model_digest
from velocitune_core.model.modules import count_parameters

TOKENIZER = train_tokenizer(["the answer is that the sum of the two is four"] * 9, 300)
SHAPE = Base.model_construct(hidden_size=16, intermediate_size=32, layers=2, heads=2)


@given(st.text(max_size=80))
def test_any_text_is_encoded_without_loss(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_the_end_of_text_is_one_token() -> None:
    assert TOKENIZER.eos_token == TOKENIZER.bos_token == END_OF_TEXT
    assert TOKENIZER.convert_tokens_to_ids(END_OF_TEXT) == TOKENIZER.eos_token_id
    assert len(TOKENIZER("the answer")["input_ids"]) < len("the answer")  # it has learnt merges


def test_a_llama_has_the_configured_shape_and_tied_embeddings() -> None:
    model = build_llama(SHAPE, TOKENIZER, sequence_length=64, seed=1)
    # embedding V·16; two layers of 4·16² + 3·16·32 + 2·16; the last norm 16
    assert count_parameters(model) == len(TOKENIZER) * 16 + 2 * (4 * 16**2 + 3 * 16 * 32 + 2 * 16) + 16
    assert model.config.max_position_embeddings == 64
    assert model.config.eos_token_id == TOKENIZER.eos_token_id
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_parameters_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = build_llama(SHAPE, TOKENIZER, 64, seed=1)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == after, "the global generator is left as it was"
    again, other = build_llama(SHAPE, TOKENIZER, 64, seed=1), build_llama(SHAPE, TOKENIZER, 64, seed=2)
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(first.lm_head.weight, other.lm_head.weight)


def test_the_parameters_of_an_untrained_model_are_drawn_again_from_its_seed(tmp_path: Path) -> None:
    """Only configuration, tokenizer and seed travel to another machine, and identify the model there."""
    folder = tmp_path / "untrained"
    save_untrained(build_llama(SHAPE, TOKENIZER, 32, seed=3), TOKENIZER, 3, folder)
    before, digest = {file.name: file.read_bytes() for file in folder.iterdir()}, model_digest(folder)
    (folder / "model.safetensors").unlink()
    assert model_digest(folder) == digest
    draw_parameters(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (folder / UNTRAINED).write_text('{"seed": 4}')
    assert model_digest(folder) != digest
