"""Checkpoints: what is saved comes back, and every kind of damage falls back to the one before."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from velocitune_core.checkpoint import Checkpoint, CheckpointError, load_checkpoint, load_latest, save_checkpoint


def checkpoint(step: int) -> Checkpoint:
    tensors = {"weight": torch.full((50, 40), float(step)), "rng": torch.arange(16, dtype=torch.uint8)}
    return Checkpoint(step, tensors, {"step_of": step, "credit": 0.1 + 0.2, "points": [{"loss": 3.25}], "none": None})


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with sound checkpoints of steps 10 and 20."""
    for step in (10, 20):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    return tmp_path


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    saved = checkpoint(7)
    saved.tensors["half"] = torch.randn(3, 4).bfloat16()
    saved.tensors["scalar"] = torch.tensor(3.0)
    saved.tensors["empty"] = torch.empty(0, 4)
    path = save_checkpoint(tmp_path / "checkpoints", saved, keep=1)
    assert path.name == "step-00000007"
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.state) == (7, saved.state)
    assert set(loaded.tensors) == set(saved.tensors)
    for name, tensor in saved.tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def test_tensors_that_share_memory_or_lie_askew_come_back(tmp_path: Path) -> None:
    embedding = torch.randn(8, 4, requires_grad=True)
    tensors = {
        "embedding": embedding,
        "head": embedding,  # tied
        "transposed": embedding.T,
        "rows": embedding[2:5],
        "every_other": embedding[::2],
    }
    path = save_checkpoint(tmp_path, Checkpoint(1, tensors, {}), keep=1)
    loaded = load_checkpoint(path).tensors
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor.detach()), name


def test_there_may_be_none(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "nothing") == (None, [])
    assert load_latest(tmp_path) == (None, [])


def test_the_newest_is_loaded_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100_000_000):  # the last has one digit more
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert names(tmp_path) == ["step-00000015", "step-100000000"]
    latest, damaged = load_latest(tmp_path)
    assert (latest.step, damaged) == (100_000_000, [])


def test_a_step_may_be_saved_again(two: Path) -> None:
    again = checkpoint(20)
    again.tensors["weight"] += 1
    save_checkpoint(two, again, keep=2)
    assert names(two) == ["step-00000010", "step-00000020"]
    assert torch.equal(load_latest(two)[0].tensors["weight"], again.tensors["weight"])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_damage_falls_back_to_the_one_before_and_is_named(two: Path, file: str, damage) -> None:
    damaged_path = two / "step-00000020"
    damage(damaged_path / file)
    latest, damaged = load_latest(two)
    assert latest.step == 10
    assert torch.equal(latest.tensors["weight"], checkpoint(10).tensors["weight"])
    (line,) = damaged
    assert line.startswith(str(damaged_path))
    assert "damaged" in line
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(damaged_path)


def test_a_state_that_is_no_checkpoint_is_damage(two: Path) -> None:
    (two / "step-00000020" / "state.json").write_text("[]")
    (two / "step-00000010" / "state.json").write_text('{"step": 10}')
    latest, damaged = load_latest(two)
    assert latest is None
    assert len(damaged) == 2


def test_what_is_saved_after_damage_is_kept(two: Path) -> None:
    """The damaged ones have higher steps: they must not crowd out what the run saves after falling back."""
    for path in two.iterdir():
        truncate(path / "tensors.safetensors")
    assert load_latest(two)[0] is None
    save_checkpoint(two, checkpoint(5), keep=1)
    assert load_latest(two)[0].step == 5


def test_leftovers_of_a_kill_are_removed(two: Path) -> None:
    shutil.copytree(two / "step-00000020", two / ".step-00000030.4711.tmp")
    shutil.copytree(two / "step-00000020", two / ".step-00000020.4711.old")
    latest, damaged = load_latest(two)
    assert (latest.step, damaged) == (20, [])
    assert names(two) == ["step-00000010", "step-00000020"]


SAVER = """
import sys
from pathlib import Path
import torch
from velocitune_core.checkpoint import Checkpoint, save_checkpoint
folder, tensors = Path(sys.argv[1]), {"weight": torch.zeros(25_000_000)}
save_checkpoint(folder, Checkpoint(1, tensors, {}), keep=2)
save_checkpoint(folder, Checkpoint(2, {"weight": tensors["weight"] + 1}, {}), keep=2)
"""


def test_a_kill_in_the_middle_of_saving_leaves_the_one_before(tmp_path: Path) -> None:
    saver = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)])
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".step-00000002.*.tmp/*")):  # 100 MB are being written
        assert saver.poll() is None and time.monotonic() < deadline, "the second save was never seen"
        time.sleep(0.001)
    saver.kill()
    saver.wait()
    assert list(tmp_path.glob(".step-00000002.*.tmp"))
    latest, damaged = load_latest(tmp_path)
    assert (latest.step, damaged) == (1, [])
    assert not latest.tensors["weight"].any()
    assert names(tmp_path) == ["step-00000001"]
