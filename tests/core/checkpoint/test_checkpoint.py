"""Checkpoints: what is saved is read back, and any corruption falls back to the one before."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from velocitune_core.checkpoint.store import (
    Checkpoint,
    CheckpointError,
    CorruptError,
    SaveError,
    load_checkpoint,
    load_latest,
    read_tensors,
    save_checkpoint,
)

STATE = {"credit": 0.1 + 0.2, "points": [{"loss": 3.25}], "none": None}


def tensors(step: int) -> dict[str, Tensor]:
    return {"weight": torch.full((50, 40), float(step)), "rng": torch.arange(16, dtype=torch.uint8)}


def save(folder: Path, step: int, keep: int = 2, content: dict[str, Tensor] | None = None) -> Path:
    return save_checkpoint(folder, step, tensors(step) if content is None else content, STATE, keep=keep)


def read(checkpoint: Checkpoint, like: dict[str, Tensor]) -> dict[str, Tensor]:
    into = {name: torch.zeros_like(tensor) for name, tensor in like.items()}
    read_tensors(checkpoint, into)
    return into


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with valid checkpoints of steps 10 and 20."""
    for step in (10, 20):
        save(tmp_path, step)
    return tmp_path


def test_tensors_and_state_are_read_back(tmp_path: Path) -> None:
    saved = tensors(7) | {
        "half": torch.randn(3, 4).bfloat16(),
        "scalar": torch.tensor(3.0),
        "askew": torch.randn(8, 4).T,
        "part": torch.randn(8, 4)[::2],
    }
    path = save(tmp_path / "checkpoints", 7, content=saved)
    assert path.name == "step-00000007"
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.state) == (7, STATE)
    for name, tensor in read(loaded, saved).items():
        assert tensor.dtype == saved[name].dtype and torch.equal(tensor, saved[name]), name


def test_a_checkpoint_contains_no_pickle(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    suffixes = {file.suffix for file in path.iterdir()}
    assert suffixes == {".safetensors", ".json"}


def test_tensors_that_were_not_saved_cannot_be_read(two: Path) -> None:
    latest, _ = load_latest(two)
    assert latest is not None
    with pytest.raises(CheckpointError, match=r"step-00000020: its tensors do not fit this run: .*more"):
        read(latest, tensors(20) | {"more": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="do not fit this run"):
        read(latest, {"weight": torch.zeros(40, 50)})


def test_a_folder_may_have_no_checkpoint(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "nothing") == (None, [])
    assert load_latest(tmp_path) == (None, [])


def test_the_newest_is_loaded_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100_000_000):  # the last has one digit more
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000015", "step-100000000"]
    latest, corrupt = load_latest(tmp_path)
    assert latest is not None and (latest.step, corrupt) == (100_000_000, [])


def test_the_newest_up_to_a_step_is_kept_as_well(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20, 25):
        save_checkpoint(tmp_path, step, tensors(step), {}, keep=1, keep_through_step=12)
    assert names(tmp_path) == ["step-00000010", "step-00000025"]


def test_a_step_may_be_saved_again(two: Path) -> None:
    save(two, 20, content=tensors(21))
    assert names(two) == ["step-00000010", "step-00000020"]
    latest, _ = load_latest(two)
    assert latest is not None and torch.equal(read(latest, tensors(0))["weight"], tensors(21)["weight"])


def test_an_old_checkpoint_that_cannot_be_deleted_is_warned_of(two: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The new one is on the disk; what else is superfluous is deleted. No user can delete a link as a folder."""
    old, elsewhere = two / "step-00000010", two / "elsewhere"
    old.rename(elsewhere)
    old.symlink_to(elsewhere)
    save(two, 5)
    path = save(two, 30, keep=1)
    assert load_checkpoint(path).step == 30
    assert names(two) == ["elsewhere", "step-00000010", "step-00000030"]
    (warning,) = [each.getMessage() for each in caplog.records]
    assert warning.startswith(f"{old}: this old checkpoint stays: ")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("change", [truncate, flip_a_bit, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", ["*.safetensors", "state.json"])
def test_a_corrupt_checkpoint_is_named_and_the_one_before_is_loaded(two: Path, file: str, change: Any) -> None:
    corrupt_path = two / "step-00000020"
    (hit,) = corrupt_path.glob(file)
    change(hit)
    latest, (problem,) = load_latest(two)
    assert latest is not None and latest.step == 10
    assert torch.equal(read(latest, tensors(0))["weight"], tensors(10)["weight"])
    assert str(problem).startswith(str(corrupt_path)) and "corrupt" in str(problem)
    with pytest.raises(CheckpointError, match="corrupt"):
        load_checkpoint(corrupt_path)


def test_a_state_file_without_a_checkpoint_is_corrupt(two: Path) -> None:
    (two / "step-00000020" / "state.json").write_text("[]")
    (two / "step-00000010" / "state.json").write_text('{"step": 10}')
    latest, corrupt = load_latest(two)
    assert latest is None
    assert len(corrupt) == 2


def test_checkpoints_after_a_corrupt_one_are_kept(two: Path) -> None:
    """Corrupt ones have higher steps: they must not count among those that are kept."""
    for path in two.glob("*/*.safetensors"):
        truncate(path)
    assert load_latest(two)[0] is None
    save(two, 5, keep=1)
    latest, _ = load_latest(two)
    assert latest is not None and latest.step == 5


def test_a_later_checkpoint_is_deleted_only_if_its_hash_was_found_wrong(two: Path) -> None:
    """As after a fall back to an earlier step, or when another process has written it."""
    save(two, 5, keep=1)
    assert names(two) == ["step-00000005", "step-00000010", "step-00000020"]
    flip_a_bit(two / "step-00000020" / "state.json")
    (two / "step-00000010" / "state.json").unlink()  # cannot be read: perhaps now, perhaps for ever
    latest, problems = load_latest(two)
    assert latest is not None and latest.step == 5
    corrupt = [each.path for each in problems if isinstance(each, CorruptError)]
    assert corrupt == [two / "step-00000020"]
    save_checkpoint(two, 6, tensors(6), STATE, keep=1, corrupt=corrupt)
    assert names(two) == ["step-00000006", "step-00000010"]


def test_folders_of_interrupted_saves_are_removed(two: Path) -> None:
    shutil.copytree(two / "step-00000020", two / ".step-00000030.tmp")
    shutil.copytree(two / "step-00000020", two / ".step-00000020.4711.old")
    latest, corrupt = load_latest(two)
    assert latest is not None and (latest.step, corrupt) == (20, [])
    assert names(two) == ["step-00000010", "step-00000020"]


def test_a_failed_save_names_the_space_it_needs_and_keeps_the_others(two: Path) -> None:
    """The simplest failure: a file has the name of the temporary folder."""
    (two / ".step-00000030.tmp").write_text("in the way")
    with pytest.raises(SaveError, match=r"step-00000030: cannot be saved: .*it needs 0\.0 MB .* MB are free"):
        save(two, 30)
    (two / ".step-00000030.tmp").unlink(missing_ok=True)
    latest, corrupt = load_latest(two)
    assert latest is not None and (latest.step, corrupt) == (20, [])


SAVER = """
import sys
from pathlib import Path
import torch
from velocitune_core.checkpoint.store import save_checkpoint
folder, weight = Path(sys.argv[1]), torch.zeros(25_000_000)
save_checkpoint(folder, 1, {"weight": weight}, {}, keep=2)
save_checkpoint(folder, 2, {"weight": weight + 1}, {}, keep=2)
"""


@pytest.mark.slow
def test_a_kill_during_a_save_leaves_the_one_before(tmp_path: Path) -> None:
    saver = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)])
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".step-00000002.tmp/*")):  # 100 MB are being written
        assert saver.poll() is None and time.monotonic() < deadline, "the second save did not begin"
        time.sleep(0.001)
    saver.kill()
    saver.wait()
    assert list(tmp_path.glob(".step-00000002.tmp"))
    latest, corrupt = load_latest(tmp_path)
    assert latest is not None and (latest.step, corrupt) == (1, [])
    assert not read(latest, {"weight": torch.ones(25_000_000)})["weight"].any()
    assert names(tmp_path) == ["step-00000001"]
