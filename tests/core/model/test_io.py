"""Models are loaded, saved and hashed, also by several threads at once, as a comparison does."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from velocitune_core.model.io import load_model, model_digest, save_model
from velocitune_core.model.tokenizer import load_tokenizer


@pytest.mark.slow
def test_threads_that_load_at_once_get_complete_models(tiny_inputs: Path) -> None:
    folder = str(tiny_inputs / "model")
    expected = load_model(folder).state_dict()

    def load(number: int) -> bool:
        load_tokenizer(folder)
        found = load_model(folder).state_dict()
        return all(torch.equal(found[name], expected[name]) for name in expected)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(load, range(40)))


def test_a_saved_model_is_loaded_as_it_was_with_one_copy_of_tied_parameters(tiny_inputs: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(str(tiny_inputs / "model")), load_tokenizer(str(tiny_inputs / "model"))
    replaced = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    save_model(model, tokenizer, tmp_path / "saved", replaced)
    loaded = load_model(str(tmp_path / "saved"))
    assert not loaded.training and {each.dtype for each in loaded.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, replaced[name]) for name, tensor in loaded.state_dict().items())
    assert "lm_head.weight" not in load_file(tmp_path / "saved" / "model.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "saved"]  # nothing temporary is left


def test_the_digest_depends_on_configuration_and_parameters_alone(tiny_inputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_inputs / "model", folder)
    before = model_digest(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert model_digest(folder) == before == model_digest(tiny_inputs / "model")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert model_digest(folder) != before
