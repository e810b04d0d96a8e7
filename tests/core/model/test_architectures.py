"""Many architectures, on one process and two, in float32 and bfloat16: losses are transformers' own, with logits in
chunks, and those of a document alone where attention stays inside it; a saved model is loaded by transformers as it was
trained, and a resumed training goes on bit for bit.

One pair of ranks trains all of them, and one process alone does, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, write_architecture
from architectures_program import DOCUMENTS, HELD_OUT, LOGITS_AT_ONCE, NOT_MASKED, PACKED, batch
from documents_alone import alone
from forked import ForkedRun
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.slow
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# of a loss of about 4 nats; bfloat16 has 8 significant bits, and transformers rounds the weights to it for good
TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-3}
INSIDE = {"float32": 1e-5, "bfloat16": 1e-2}  # nats of a row; measured: 8e-7, 2.6e-3; across documents: 0.07 to 0.47
# of logits up to about 3. Most are equal bit for bit. In bfloat16 those of OLMo 2 differ by up to 0.08, five steps of
# its numbers there: FSDP2 rounds what a layer is given, and OLMo 2 gives its layers sine and cosine in float32
LOGITS = {"float32": 2e-6, "bfloat16": 0.1}


@pytest.fixture(scope="module")
def models(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("architectures")
    for name in ARCHITECTURES:
        write_architecture(name, folder, tiny_inputs / "model")
    return folder


@pytest.fixture(scope="module")
def outputs(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What each number of ranks made of all architectures."""
    found, runs = {}, {}
    path = {"PYTHONPATH": str(Path(__file__).parents[2] / "helpers")}
    for ranks in (1, 2):
        found[ranks] = tmp_path_factory.mktemp(f"of-{ranks}-ranks")
        runs[ranks] = ForkedRun([str(models), str(found[ranks])], ranks, path, program="architectures_program")
    for run in runs.values():
        _, stderr = run.communicate(timeout=400)
        assert run.returncode == 0, stderr
    return found


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "found.json").read_text())


def own_loss(folder: Path, rows: Any, dtype: torch.dtype) -> float:
    """The loss that transformers computes."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokens = torch.from_numpy(rows.astype("int64"))
    with torch.no_grad():
        return model(input_ids=tokens, labels=tokens).loss.item()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_losses_are_transformers_own(models: Path, outputs: dict[int, Path], name: str, precision: str) -> None:
    of_batch = own_loss(models / name, batch(0), DTYPES[precision])
    held_out = own_loss(models / name, HELD_OUT["code"], DTYPES[precision])
    for ranks in (1, 2):
        found = read(outputs[ranks] / f"{name}-{precision}")
        assert found["curve"][0] == pytest.approx(of_batch, rel=TOLERANCE[precision]), ranks
        assert found["untrained"] == pytest.approx(held_out, rel=TOLERANCE[precision]), ranks
        assert found["logits at once"] == [LOGITS_AT_ONCE], ranks


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != NOT_MASKED])
def test_attention_stays_inside_documents(models: Path, outputs: dict[int, Path], name: str, precision: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(models / name, dtype=DTYPES[precision])
    rows = list(zip(torch.from_numpy(PACKED), DOCUMENTS, strict=True))
    with torch.no_grad():
        expected = [alone(model, *row).mean().item() for row in rows]
    across = [own_loss(models / name, row[None], DTYPES[precision]) for row in PACKED]
    assert np.abs(np.subtract(across, expected)).max() > 2 * INSIDE[precision]
    for ranks in (1, 2):
        for found in read(outputs[ranks] / f"{name}-{precision}")["inside documents"]:
            assert found == pytest.approx(expected, abs=INSIDE[precision]), ranks


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_resumed_training_goes_on_bit_for_bit(outputs: dict[int, Path], name: str, precision: str) -> None:
    curves = []
    for ranks in (1, 2):
        found = read(outputs[ranks] / f"{name}-{precision}")
        assert found["resumed curve"] == found["curve"], ranks
        assert found["trained"] != found["untrained"]
        curves.append(found["curve"])
    assert curves[1] == pytest.approx(curves[0], rel={"float32": 1e-4, "bfloat16": 2e-2}[precision])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_saved_model_is_loaded_as_it_was_trained(
    models: Path, outputs: dict[int, Path], name: str, precision: str
) -> None:
    tokens = torch.from_numpy(HELD_OUT["code"].astype("int64"))
    for ranks in (1, 2):
        folder = outputs[ranks] / f"{name}-{precision}"
        with torch.no_grad():
            found = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=DTYPES[precision])(
                input_ids=tokens, labels=tokens
            )
        assert read(folder)["trained"] == pytest.approx(found.loss.item(), rel=TOLERANCE[precision])
        in_memory = torch.from_numpy(np.load(folder / "logits.npy"))  # of the main rank's rows
        loaded = found.logits[::ranks, :-1].float()
        torch.testing.assert_close(in_memory, loaded, atol=LOGITS[precision], rtol=0.0)
        before, after = (load_file(each / "model.safetensors") for each in (models / name, folder / "model"))
        assert {key: tensor.shape for key, tensor in after.items()} == {key: each.shape for key, each in before.items()}
