"""The disk is full when a checkpoint is due: a small tmpfs under the run's checkpoints, filled while it trains."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import train_here, warnings
from tiny import job

from velocitune_core.checkpoint.store import load_latest
from velocitune_core.train.events import Checkpointed, Event, Finished
from velocitune_core.train.trainer import TrainingError

MEGABYTES = 2  # a checkpoint takes a tenth of one


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no `mount` here to make a small disk with")
    if done.returncode:
        pytest.skip(f"a small disk may not be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class FullFromTheFirstSaveOn:
    """Fills the disk once a checkpoint is on it; `relieve` says when there is room again."""

    def __init__(self, folder: Path, relieve: bool) -> None:
        self._ballast, self._relieve = folder / "ballast", relieve

    def __call__(self, event: Event) -> None:
        if isinstance(event, Checkpointed) and event.step == 4:
            with self._ballast.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass  # full
        elif self._relieve and event.step == 20:
            self._ballast.unlink(missing_ok=True)


def test_training_goes_on_without_the_checkpoint_and_says_what_it_needs(
    tiny_inputs: Path, tmp_path: Path, checkpoints: Path
) -> None:
    tree = job(tiny_inputs, tmp_path / "run", execution__checkpoint_every_steps=4)
    said = train_here(tree, FullFromTheFirstSaveOn(checkpoints, relieve=True))
    assert isinstance(said[-1], Finished)
    problems = [message for message in warnings(said) if "cannot be saved" in message]
    assert 3 <= len(problems) <= 5
    assert "No space left" in problems[0] and "it needs 0." in problems[0] and "0.0 MB are free" in problems[0]
    saved = [event.step for event in said if isinstance(event, Checkpointed)]
    assert saved[0] == 4 and saved[1] >= 20 and saved[-1] == 44
    assert list(checkpoints.glob("*.tmp")) == []


def test_a_run_that_is_to_stop_stops_with_its_last_checkpoint(
    tiny_inputs: Path, tmp_path: Path, checkpoints: Path
) -> None:
    changes = {"execution__checkpoint_every_steps": 4, "execution__on_save_failure": "stop"}
    tree = job(tiny_inputs, tmp_path / "run", **changes)
    with pytest.raises(TrainingError, match=r"on_save_failure is stop: .*step-00000008: cannot be saved"):
        train_here(tree, FullFromTheFirstSaveOn(checkpoints, relieve=False))
    latest, corrupt = load_latest(checkpoints)
    assert latest is not None and (latest.step, corrupt) == (4, [])
    (checkpoints / "ballast").unlink()
    assert isinstance(train_here(tree)[-1], Finished)


def test_a_stop_that_could_not_save_does_not_say_that_it_did(
    tiny_inputs: Path, tmp_path: Path, checkpoints: Path
) -> None:
    stop: list[Event] = []

    def fill_and_ask_to_stop(event: Event) -> None:
        FullFromTheFirstSaveOn(checkpoints, relieve=False)(event)
        stop.extend([event] if event.step == 10 else [])

    tree = job(tiny_inputs, tmp_path / "run", execution__checkpoint_every_steps=4)
    with pytest.raises(Exception, match="stopped after step") as stopped:
        train_here(tree, fill_and_ask_to_stop, should_stop=lambda: bool(stop))
    assert "cannot be saved" in warnings(stopped.value.said)[-1]  # type: ignore[attr-defined]
    assert not str(stopped.value).endswith("; saved")
