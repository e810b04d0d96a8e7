"""Files that mean harm: pickles where weights, checkpoints or data are expected, and headers that lie."""

from __future__ import annotations

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import malicious, newest_tensors
from pydantic import ValidationError
from tiny import job

from velocitune_core.checkpoint.store import CheckpointError, load_latest, read_tensors, save_checkpoint
from velocitune_core.data.dataset import load_split
from velocitune_core.model.folder import ModelError, check_model_folder
from velocitune_core.model.io import load_model
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.train.job import TrainJob


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The folder that a payload makes if it runs."""
    return tmp_path / "the payload ran"


@pytest.fixture
def model(tiny_inputs: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_inputs / "model", tmp_path / "model")
    return tmp_path / "model"


def test_a_model_of_pickles_is_refused(model: Path, mark: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(malicious(mark))
    (problem,) = check_model_folder(str(model))
    assert "no .safetensors weights" in problem
    with pytest.raises(ModelError, match=r"cannot load the model of .*model"):
        load_model(str(model))
    assert not mark.exists()


def test_a_pickle_beside_good_weights_is_never_opened(model: Path, mark: Path) -> None:
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "tokenizer.pkl", ".metadata"):
        (model / name).write_bytes(malicious(mark))
    load_model(str(model))
    load_tokenizer(str(model))
    assert not mark.exists()


def test_code_that_comes_with_a_model_is_not_run(model: Path, mark: Path) -> None:
    """`auto_map` names a class in a file of the folder, which transformers would import if it were allowed to."""
    config = json.loads((model / "config.json").read_text())
    config["model_type"], config["auto_map"] = "stranger", {"AutoModelForCausalLM": "strange.Model"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "strange.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Model: ...\n")
    with pytest.raises(ModelError):
        load_model(str(model))
    assert not mark.exists()


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Valid checkpoints of steps 10 and 20."""
    for step in (10, 20):
        save_checkpoint(tmp_path / "checkpoints", step, {"weight": torch.zeros(50, 40)}, {"step_of": step}, keep=2)
    return tmp_path / "checkpoints"


def put_in_place(content: bytes, checkpoints: Path) -> Path:
    """Replace the newest checkpoint's tensors, and also the hash that vouches for them."""
    tensors = newest_tensors(checkpoints)
    before = sha256(tensors.read_bytes()).hexdigest()
    tensors.write_bytes(content)
    for file in tensors.parent.glob("*.json"):
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, sha256(content).hexdigest()))
    return tensors


def refuse_tensors(file: Path) -> None:
    """Its hash is right, so only reading it shows what it is."""
    latest, corrupt = load_latest(file.parents[1])
    assert latest is not None and latest.path == file.parent and corrupt == []
    with pytest.raises(CheckpointError, match=re.escape(str(file.parent))):
        read_tensors(latest, {"weight": torch.zeros(50, 40)})


def test_a_pickle_in_place_of_a_checkpoint_is_refused(checkpoints: Path, mark: Path) -> None:
    refuse_tensors(put_in_place(malicious(mark), checkpoints))
    assert not mark.exists()


def test_the_metadata_pickle_of_torch_is_damage(checkpoints: Path, mark: Path) -> None:
    """torch.distributed.checkpoint keeps its index in a pickle named .metadata; such a folder is none of ours."""
    folder = checkpoints / "step-00000030"
    folder.mkdir()
    (folder / ".metadata").write_bytes(malicious(mark))
    (folder / "__0_0.distcp").write_bytes(malicious(mark))
    latest, corrupt = load_latest(checkpoints)
    assert latest is not None and latest.step == 20
    assert [str(folder) in str(problem) for problem in corrupt] == [True]
    assert not mark.exists()


def test_packed_sequences_that_are_a_pickle_are_refused(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "train.npy").write_bytes(malicious(mark))
    with pytest.raises(ValueError, match=r"[Pp]ickle"):
        load_split(tmp_path / "train.npy")
    np.save(tmp_path / "objects.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"Python objects|[Oo]bject|pickle"):
        load_split(tmp_path / "objects.npy")
    assert not mark.exists()


def header(tensors: dict[str, object], length: int | None = None) -> bytes:
    text = json.dumps(tensors).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(64)


def entry(start: int, end: int, shape: list[int] | None = None) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape or [(end - start) // 4], "data_offsets": [start, end]}


HEADERS = {
    "longer than any file": header({"a": entry(0, 64)}, length=2**63),
    "a terabyte": header({"a": entry(0, 64)}, length=10**12),
    "not JSON": (20).to_bytes(8, "little") + b"{'weight': oh dear!}" + bytes(64),
    "not UTF-8": (4).to_bytes(8, "little") + b"\xff\xfe\xfd{" + bytes(64),
    "overlapping offsets": header({"a": entry(0, 40), "b": entry(24, 64)}),
    "beyond the end": header({"a": entry(0, 4000)}),
    "backwards": header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [64, 48]}}),
    "a shape that is too large": header({"a": entry(0, 64, shape=[2**40, 2**40])}),
    "nothing at all": b"",
    "cut off in its length": b"\x01\x02",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_lies_is_an_error_with_the_name_of_the_file(
    model: Path, checkpoints: Path, content: bytes
) -> None:
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot load the model of .*model"):
        load_model(str(model))
    refuse_tensors(put_in_place(content, checkpoints))


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "/etc/x", ".hidden", "", "x\n", "x\0y", "a b", "-rf"])
def test_names_that_lead_out_of_the_folder_are_refused(tiny_inputs: Path, tmp_path: Path, name: str) -> None:
    """A run's name becomes a folder of `runs`, a domain's name one of `prepared`."""
    good = job(tiny_inputs, tmp_path / "run")
    domains = {name: good["domains"]["code"], "general": good["domains"]["general"]}
    weights = {name: 0.7, "general": 0.3}
    for bad in (good | {"name": name}, good | {"domains": domains, "initial_domain_weights": weights}):
        with pytest.raises(ValidationError, match="pattern"):
            TrainJob.model_validate(bad, strict=False)
