"""Rows longer than a model's positions: refused where its table of positions ends, whatever keeps the table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from architectures import shape_of
from tiny import LENGTH
from transformers import AutoModelForCausalLM, PretrainedConfig

from velocitune_core.model.fits_data import POSITION_LIMITS, Fit, check_length
from velocitune_core.model.positions import positions_fit

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
    assert positions_fit(path, LENGTH) == Fit()
    (problem,) = positions_fit(path, LENGTH + 1).problems
    assert problem.startswith(f"data.sequence_length: {LENGTH + 1}, and {path} has {LENGTH} positions, none of which ")
    assert problem.endswith(f"set it to {LENGTH} or less")
    model = AutoModelForCausalLM.from_pretrained(path)
    model(torch.arange(LENGTH)[None])
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.arange(LENGTH + 1)[None])


@pytest.mark.parametrize("name", GOING_ON)
def test_positions_that_go_on_are_only_warned_of(tmp_path: Path, name: str) -> None:
    path = saved(GOING_ON[name], tmp_path)
    assert positions_fit(path, 2 * LENGTH) == Fit()
    assert check_length(path, 2 * LENGTH).warnings
    AutoModelForCausalLM.from_pretrained(path)(torch.arange(2 * LENGTH)[None] % 64)


def test_learned_positions_are_one_problem(tmp_path: Path) -> None:
    path = saved(shape_of("gpt2"), tmp_path)
    assert len(check_length(path, LENGTH + 1).problems) == 1
    assert positions_fit(path, LENGTH + 1) == Fit()


@pytest.mark.parametrize(("name", "ends"), [("gptj", True), ("llama", False)])
def test_a_model_of_many_positions_is_tried_with_fewer(tmp_path: Path, name: str, ends: bool) -> None:
    """Rows of a million tokens would need memory without end."""
    config = (ENDING | GOING_ON)[name]
    changed = type(config)(**config.to_dict() | {"n_positions" if ends else "max_position_embeddings": 1_000_000})
    changed.save_pretrained(tmp_path)
    problems = positions_fit(str(tmp_path), 1_000_001).problems
    assert ["set it to 1000000 or less" in each for each in problems] == [True] * ends


DEFAULTS = {  # what the class has where config.json names no positions: by learned embeddings, a table, without end
    "gpt2": (transformers.GPT2Config, {"n_embd": 8, "n_layer": 1, "n_head": 1}, 1024, r"each with a learned embedding"),
    "gptj": (transformers.GPTJConfig, {**SHAPE, "rotary_dim": 4}, 2048, r"none of which can be added"),
    "llama": (transformers.LlamaConfig, {"hidden_size": 32, "num_attention_heads": 2}, 2048, None),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_positions_that_only_the_class_names_are_checked_too(tmp_path: Path, name: str) -> None:
    kind, sizes, positions, refused = DEFAULTS[name]
    small = {**sizes, "vocab_size": 64, "num_hidden_layers": 1, "intermediate_size": 32}
    small.pop("n_positions", None)
    path = saved(kind(**small), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for limit in POSITION_LIMITS:
        config.pop(limit, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert check_length(path, positions + 1) == positions_fit(path, positions) == Fit()
    found = positions_fit(path, positions + 1)
    assert f"{path} has {positions} positions" in str(found)
    if refused:
        assert [re.search(refused, each) is not None for each in found.problems] == [True]
    else:
        assert found.problems == [] and len(found.warnings) == 1
