"""Losses that are not numbers: one embedding is infinite, so whatever holds that token has a loss of NaN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import train_here, warnings
from tiny import LENGTH, VOCABULARY, job, llama
from trainings import load_file

from velocitune_core.train.events import Checkpointed, Evaluated, Event, Finished, Reweighted, Started, Stepped
from velocitune_core.train.trainer import TrainingError

pytestmark = pytest.mark.slow

POISON = VOCABULARY - 1


@pytest.fixture
def inputs(tiny_inputs: Path, tmp_path: Path) -> Path:
    """A model in which the token `POISON` is infinite, and two domains without it."""
    model = llama()
    model.config.tie_word_embeddings = False  # or the token would be infinitely likely everywhere
    model = type(model)(model.config)
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = torch.inf
    folder = tmp_path / "inputs"
    model.save_pretrained(folder / "model")
    for file in (tiny_inputs / "model").glob("tokenizer*"):
        (folder / "model" / file.name).write_bytes(file.read_bytes())
    for name in ("code", "general"):
        (folder / name).mkdir()
        for split in ("train", "held_out"):
            rows = np.load(tiny_inputs / name / f"{split}.npy") % POISON
            np.save(folder / name / f"{split}.npy", rows)
    return folder


def rows(inputs: Path, name: str, split: str) -> np.memmap:
    """The file that the training has mapped, for writing: what changes here, the training reads."""
    return np.load(inputs / name / f"{split}.npy", mmap_mode="r+")


def steps_of(kind: type[Event], said: list[Event]) -> list[int]:
    return [event.step for event in said if isinstance(event, kind)]


def weights(output: Path) -> dict[str, np.ndarray]:
    return load_file(output / "model" / "model.safetensors")


def settings(inputs: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return job(inputs, output, **{"execution__checkpoint_every_steps": 1, **changes})


def test_an_update_that_is_not_finite_is_skipped_told_and_not_saved(inputs: Path, tmp_path: Path) -> None:
    rows(inputs, "code", "train")[7, LENGTH // 2] = POISON  # one sequence of sixty, met a few times in 45 steps
    said = train_here(settings(inputs, tmp_path / "run", strategy={"name": "static", "options": {}}))
    skipped = {event.step for event in said if isinstance(event, Stepped) and not np.isfinite(event.loss)}
    assert 1 <= len(skipped) == len(warnings(said)) <= 6
    for message in warnings(said):
        assert "loss nan" in message and "not applied; its batch was from ['code'" in message
    assert set(steps_of(Checkpointed, said)) == set(range(1, 46)) - skipped
    for name, values in weights(tmp_path / "run").items():
        finite = np.isfinite(values)
        assert finite[:POISON].all() if "embed" in name else finite.all(), name


def test_the_warning_names_the_step_as_the_events_count(inputs: Path, tmp_path: Path) -> None:
    rows(inputs, "code", "train")[7, LENGTH // 2] = POISON
    said = train_here(settings(inputs, tmp_path / "run", strategy={"name": "static", "options": {}}))
    skipped = [event.step for event in said if isinstance(event, Stepped) and not np.isfinite(event.loss)]
    assert [message.split(":")[0] for message in warnings(said)] == [f"step {step}" for step in skipped]


def test_three_in_a_row_stop_the_run_and_mended_data_go_on_from_the_last_good_step(
    inputs: Path, tmp_path: Path
) -> None:
    good = {name: rows(inputs, name, "train").copy() for name in ("code", "general")}
    tree = settings(inputs, tmp_path / "run")

    def poison_everything(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 20:
            for name in good:
                rows(inputs, name, "train")[:, 3] = POISON

    with pytest.raises(TrainingError, match="3 steps in a row without a finite loss") as stopped:
        train_here(tree, poison_everything)
    assert str(tmp_path / "run" / "checkpoints") in str(stopped.value)
    assert sum("not applied" in message for message in warnings(stopped.value.said)) == 3  # type: ignore[attr-defined]

    for name, sequences in good.items():
        rows(inputs, name, "train")[:] = sequences
    again = train_here(tree)
    started = again[0]
    assert isinstance(started, Started) and started.resumed_from == 20
    assert isinstance(again[-1], Finished) and not warnings(again)


def test_a_held_out_loss_that_is_not_finite_holds_the_weights_until_the_next_evaluation(
    inputs: Path, tmp_path: Path
) -> None:
    held_out = rows(inputs, "general", "held_out")
    before = held_out[2, 5].copy()

    def poison_one_evaluation(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 14:
            held_out[2, 5] = POISON
        if isinstance(event, Evaluated) and event.step == 15:
            held_out[2, 5] = before

    said = train_here(settings(inputs, tmp_path / "run"), poison_one_evaluation)
    losses = {event.step: event.losses for event in said if isinstance(event, Evaluated)}
    assert np.isnan(losses[15]["general"]) and np.isfinite(losses[15]["code"])
    assert all(np.isfinite(list(each.values())).all() for step, each in losses.items() if step != 15)
    assert steps_of(Reweighted, said) == [0, 5, 10, 20, 25, 30, 35, 40]  # none at 15
    (warning,) = warnings(said)
    assert warning == "step 15: held-out loss of ['general'] is not finite: domain weights stay as they are"
