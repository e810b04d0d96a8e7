"""Rows longer than a model's positions: refused where its table of positions ends, whatever keeps the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from architectures import shape_of
from tiny import LENGTH
from transformers import AutoModelForCausalLM, PretrainedConfig

from velocitune_core.model.fits_data import check_length
from velocitune_core.model.positions import positions_problem

SHAPE = {"vocab_size": 64, "n_positions": LENGTH, "n_embd": 32, "n_layer": 1, "n_head": 4}
ENDING = {  # their tables are buffers, or parameters of a name of their own
    "gptj": transformers.GPTJConfig(**SHAPE, rotary_dim=4),
    "codegen": transformers.CodeGenConfig(**SHAPE, rotary_dim=4),
    "openai-gpt": transformers.OpenAIGPTConfig(**SHAPE),
    "ctrl": transformers.CTRLConfig(**SHAPE, dff=32),
    "mpt": transformers.MptConfig(vocab_size=64, max_seq_len=LENGTH, d_model=32, n_layers=1, n_heads=4),
}
GOING_ON = {
    "falcon": transformers.FalconConfig(
        vocab_size=64, max_position_embeddings=LENGTH, hidden_size=32, num_hidden_layers=1, num_attention_heads=2
    ),
    **{name: shape_of(name) for name in ("llama", "phi", "gemma3")},
}


def saved(config: PretrainedConfig, folder: Path) -> str:
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", ENDING)
def test_a_table_of_positions_that_ends_is_refused(tmp_path: Path, name: str) -> None:
    path = saved(ENDING[name], tmp_path)
    assert positions_problem(path, LENGTH) is None
    problem = positions_problem(path, LENGTH + 1)
    assert problem is not None
    assert problem.startswith(f"data.sequence_length: {LENGTH + 1}, and {path} has {LENGTH} positions, none of which ")
    assert problem.endswith(f"set it to {LENGTH} or less")
    model = AutoModelForCausalLM.from_pretrained(path)
    model(torch.arange(LENGTH)[None])
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.arange(LENGTH + 1)[None])


@pytest.mark.parametrize("name", GOING_ON)
def test_positions_that_go_on_are_only_warned_of(tmp_path: Path, name: str) -> None:
    path = saved(GOING_ON[name], tmp_path)
    assert positions_problem(path, 2 * LENGTH) is None
    assert check_length(path, 2 * LENGTH).warnings
    AutoModelForCausalLM.from_pretrained(path)(torch.arange(2 * LENGTH)[None] % 64)


def test_learned_positions_are_one_problem(tmp_path: Path) -> None:
    path = saved(shape_of("gpt2"), tmp_path)
    assert len(check_length(path, LENGTH + 1).problems) == 1
    assert positions_problem(path, LENGTH + 1) is None


@pytest.mark.parametrize(("name", "ends"), [("gptj", True), ("llama", False)])
def test_a_model_of_many_positions_is_tried_with_fewer(tmp_path: Path, name: str, ends: bool) -> None:
    """Rows of a million tokens would need memory without end."""
    config = (ENDING | GOING_ON)[name]
    changed = type(config)(**config.to_dict() | {"n_positions" if ends else "max_position_embeddings": 1_000_000})
    changed.save_pretrained(tmp_path)
    problem = positions_problem(str(tmp_path), 1_000_001)
    assert (problem is not None and "set it to 1000000 or less" in problem) == ends
