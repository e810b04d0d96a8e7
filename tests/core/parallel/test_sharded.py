"""A model of two ranks: who reads and holds its weights, how often it is gathered, and that its gradients are right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import ForkedRun
from safetensors.torch import load_file
from sharded_program import BATCH, MICRO_BATCHES, TOO_LARGE
from tiny import rows

from velocitune_core.config import Execution, Training
from velocitune_core.model.io import load_model
from velocitune_core.parallel.gathering import gathers_per_step
from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.train.learner import Learner

pytestmark = pytest.mark.slow
GENERATION = {"eos_token_id": [0, 5], "do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_length": 77}
UNITS = 3  # that are gathered one by one: two layers, and what is outside of them


@pytest.fixture(scope="module")
def output(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks found, of which only the main one has the file of weights."""
    folder = tmp_path_factory.mktemp("sharded")
    whole, bare = folder / "model", folder / "without-weights"
    shutil.copytree(tiny_inputs / "model", whole)
    (whole / "generation_config.json").write_text(json.dumps(GENERATION))
    shutil.copytree(whole, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    path = {"PYTHONPATH": str(Path(__file__).parents[2] / "helpers")}
    run = ForkedRun([str(whole), str(bare), str(folder)], 2, path, program="sharded_program")
    _, stderr = run.communicate(timeout=200)
    assert run.returncode == 0, stderr
    return folder


@pytest.fixture(scope="module")
def found(output: Path) -> dict[str, Any]:
    return json.loads((output / "found.json").read_text())


def test_one_rank_reads_the_weights_and_holds_them_when_they_are_saved(tiny_inputs: Path, output: Path) -> None:
    names = load_model(str(tiny_inputs / "model")).state_dict().keys()
    held, by_the_other = (json.loads((output / f"held-by-{rank}.json").read_text()) for rank in (0, 1))
    assert {name.removeprefix("model.") for name in held} == names - {"lm_head.weight"}  # which is tied
    assert by_the_other == []


def test_weights_are_saved_in_the_dtype_that_was_asked_for(tiny_inputs: Path, output: Path) -> None:
    saved, source = load_file(output / "saved" / "model.safetensors"), load_model(str(tiny_inputs / "model"))
    expected = source.state_dict()
    assert all(torch.equal(each, expected[name].bfloat16()) for name, each in saved.items())
    assert json.loads((output / "saved" / "config.json").read_text())["dtype"] == "bfloat16"


def test_weights_too_large_for_float16_are_saved_in_float32(found: dict[str, Any], output: Path) -> None:
    (warning,) = found["warnings of float16"]
    assert "model.save_dtype" in warning
    saved = load_file(output / "too-large" / "model.safetensors")
    assert {each.dtype for each in saved.values()} == {torch.float32}
    assert (saved["model.norm.weight"] == TOO_LARGE).all()


def test_all_else_in_the_saved_folder_is_what_one_process_saves(output: Path, tmp_path: Path) -> None:
    training = Training.model_validate({"optimizer": {"learning_rate": 1e-2}, "precision": "float32"})
    Learner(str(output / "model"), training, Execution(), SINGLE_RANK).save(tmp_path / "saved", "bfloat16")
    alone, sharded = (
        {file.name: json.loads(file.read_text()) for file in folder.glob("*.json")}
        for folder in (tmp_path / "saved", output / "saved")
    )
    assert alone == sharded and alone["generation_config.json"].items() >= GENERATION.items()


def test_a_model_that_one_rank_cannot_load_is_refused_by_every_rank(output: Path) -> None:
    assert "cannot load the model of" in (output / "error-of-0.txt").read_text()
    assert "another rank cannot load" in (output / "error-of-1.txt").read_text()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gathering_once_a_step_changes_traffic_and_no_gradient(found: dict[str, Any], precision: str) -> None:
    layer, step, auto = (found[f"{gather} {precision}"] for gather in ("layer", "step", "auto"))
    per_layer = {"_allgather_base_": 2 * UNITS * MICRO_BATCHES, "_reduce_scatter_base_": UNITS * MICRO_BATCHES}
    assert layer["traffic"].items() >= per_layer.items()
    assert step["traffic"].items() >= {"_allgather_base_": UNITS, "_reduce_scatter_base_": UNITS}.items()
    assert auto["traffic"] == step["traffic"], "it fits"
    tolerance = {"float32": 1e-5, "bfloat16": 2e-2}[precision]
    assert step["losses"] == pytest.approx(layer["losses"], rel=tolerance)
    for name, gradient in layer["gradients"].items():
        scale = float(np.abs(gradient).max())
        np.testing.assert_allclose(step["gradients"][name], gradient, atol=tolerance * scale, err_msg=name)


def test_gradients_are_those_of_one_process(tiny_inputs: Path, found: dict[str, Any]) -> None:
    model = load_model(str(tiny_inputs / "model"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0)
    tokens = torch.from_numpy(rows("code", BATCH).astype(np.int64))
    for number in range(2):
        optimizer.zero_grad()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        assert found["step float32"]["losses"][number] == pytest.approx(loss.item(), rel=1e-5)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if number == 0:
            optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = parameter.grad.flatten().numpy()
        ours = np.array(found["step float32"]["gradients"][name])
        assert np.dot(ours, expected) / np.linalg.norm(ours) / np.linalg.norm(expected) > 0.9999, name


def test_a_reference_of_two_ranks_is_read_by_one_too(found: dict[str, Any]) -> None:
    assert found["excess over itself"] == [0.0]


@pytest.mark.parametrize(("parameters", "fits"), [(10**9, True), (3 * 10**9, True), (4 * 10**9, False)])
def test_auto_gathers_per_step_where_whole_parameters_and_gradients_fit(parameters: int, fits: bool) -> None:
    """In bfloat16, 6 bytes per parameter in a quarter of 80 GB: up to 3.3 · 10⁹."""
    assert gathers_per_step(parameters, 2, 80 * 10**9) == fits
