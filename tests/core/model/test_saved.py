"""A saved model is the one that was trained, in every way of loading that transformers reverses when it saves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import bert_shape, shape_of, write_architecture
from faults import train_here
from safetensors.torch import load_file, save_file
from tiny import LENGTH, VOCABULARY, job, llama, rows
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, BertLMHeadModel, LlamaConfig, LlamaForCausalLM

from velocitune_core.model import saved
from velocitune_core.model.folder import ModelError
from velocitune_core.model.io import load_model, write_model
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.model.saved import Trained, check_saved, checked_rows, norms
from velocitune_core.train.stop import TrainingError

ROWS = checked_rows({"code": rows("code held out", 5), "general": rows("general held out", 2)})
CPU = torch.device("cpu")


def save_and_check(folder: Path, target: Path, change: Callable[[dict[str, Any]], object] = lambda state: None) -> None:
    """What a training does with the model of a folder at its end."""
    model = load_model(str(folder))
    with torch.no_grad():
        trained = Trained(ROWS, NextTokenLoss(model)(ROWS), norms(model.state_dict()), torch.float32)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(state)
    target.mkdir()
    write_model(model, str(folder), target, state)
    check_saved(target, trained, CPU)


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    weights = {name: tensor.clone() for name, tensor in change(load_file(folder / "model.safetensors")).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def experts(folder: Path, tokenizer: Path) -> Path:
    """Stored one by one, and stacked in memory."""
    made = write_architecture("mixtral", folder, tokenizer)
    assert any("experts.0.w1" in name for name in load_file(made / "model.safetensors"))
    assert "model.layers.0.mlp.experts.gate_up_proj" in load_model(str(made)).state_dict()
    return made


def legacy_names(folder: Path, tokenizer: Path) -> Path:
    """`gamma` and `beta`, as the first models of transformers have."""
    made = folder / "bert"
    torch.manual_seed(1)
    BertLMHeadModel(BertConfig(**bert_shape(), is_decoder=True)).save_pretrained(made)
    (made / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())

    def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        named = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        return {
            next((name.replace(new, old) for new, old in named.items() if new in name), name): tensor
            for name, tensor in weights.items()
        }

    return rewritten(made, renamed)


def tied_without_prefix(folder: Path, tokenizer: Path) -> Path:
    made = write_architecture("gpt2", folder, tokenizer)
    AutoModel.from_pretrained(made).save_pretrained(made)
    assert "wte.weight" in load_file(made / "model.safetensors")
    return made


def shards(folder: Path, tokenizer: Path) -> Path:
    made = write_architecture("llama", folder, tokenizer)
    AutoModelForCausalLM.from_pretrained(made).save_pretrained(made, max_shard_size="8KB")
    (made / "model.safetensors").unlink()
    return made


def half(folder: Path, tokenizer: Path) -> Path:
    return write_architecture("qwen3", folder, tokenizer, torch.bfloat16)


@pytest.mark.parametrize("make", [experts, legacy_names, tied_without_prefix, shards, half])
def test_what_transformers_reverses_on_saving_is_loaded_as_it_was(
    make: Callable[[Path, Path], Path], tiny_inputs: Path, tmp_path: Path
) -> None:
    save_and_check(make(tmp_path, tiny_inputs / "model"), tmp_path / "saved")


def make_fp8(folder: Path) -> Path:
    """Matrices of a byte per weight, with a scale for each block of 128 by 128."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(shape).save_pretrained(folder)

    def quantised(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = dict(weights)
        for name, tensor in weights.items():
            if "_proj" in name:
                scale = tensor.abs().max() / 448
                found[name] = (tensor / scale).to(torch.float8_e4m3fn)
                found[f"{name}_scale_inv"] = scale[None, None]
        return found

    rewritten(folder, quantised)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_weights_that_are_saved_without_their_scale_are_found(tiny_inputs: Path, tmp_path: Path) -> None:
    """transformers multiplies by the scale on loading and divides by it on saving."""
    make_fp8(tmp_path / "fp8")
    (tmp_path / "fp8" / "tokenizer.json").write_bytes((tiny_inputs / "model" / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match=r"loaded again, the saved model has a loss of .* in training .*scale_inv"):
        save_and_check(tmp_path / "fp8", tmp_path / "saved")


def test_a_weight_that_is_not_what_was_trained_is_named(tiny_inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.norm\.weight are not what was saved"):
        save_and_check(tiny_inputs / "model", tmp_path / "saved", lambda state: state["model.norm.weight"].add_(0.5))


def test_a_run_whose_model_would_be_loaded_otherwise_fails_and_keeps_its_checkpoints(
    tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: Any, tokenizer: Any, folder: Path, state: Any) -> None:
        write_model(model, tokenizer, folder, state)
        config = json.loads((folder / "config.json").read_text())
        config["rms_norm_eps"] = 10.0
        (folder / "config.json").write_text(json.dumps(config))

    monkeypatch.setattr("velocitune_core.train.learner.write_model", write)
    with pytest.raises(TrainingError, match=r"loaded again, .* its weights are what was saved"):
        train_here(job(tiny_inputs, tmp_path / "run", total_steps=20))
    assert [each.name for each in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000015"]
    assert not (tmp_path / "run/model").exists() and not (tmp_path / "run/result.json").exists()


def test_one_row_of_each_set_in_turn_is_compared_and_no_more_than_a_batch() -> None:
    assert ROWS.shape == (7, LENGTH)
    assert ROWS[1].tolist() == rows("general held out", 1)[0].tolist()
    assert checked_rows({"long": rows("code", 3).repeat(100, axis=1)}).shape == (1, 1024)
    assert shape_of("llama").vocab_size > int(ROWS.max())


def test_the_logits_of_a_row_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a small model with a large vocabulary, they take more memory than the weights."""
    model = llama()
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    for free, fits in ((1.3 * weights, False), (1.3 * weights + LENGTH * VOCABULARY * 12, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 0))
        assert saved._fits(model, torch.device("cuda"), LENGTH) is fits


def test_a_full_device_does_not_fail_a_finished_run(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[str] = []

    def nats(model: Any, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
        places.append(device.type)
        if device.type == "cuda":
            raise torch.OutOfMemoryError
        return torch.zeros(len(rows), LENGTH - 1)

    monkeypatch.setattr(saved, "_nats", nats)
    monkeypatch.setattr(saved, "_fits", lambda *arguments: True)
    trained = Trained(ROWS, torch.ones(len(ROWS), LENGTH - 1), {}, torch.float32)
    expected, found = saved._compared(llama(), trained, torch.device("cuda"))
    assert places == ["cuda", "cpu"] and expected.shape == found.shape == (1, LENGTH - 1)
