"""A step reads no value of a tensor on the way: on a GPU, the host would wait for each until all before it is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, write_architecture
from tiny import LENGTH, VOCABULARY
from torch.utils._python_dispatch import TorchDispatchMode

from velocitune_core.config import Execution, Training
from velocitune_core.parallel.ranks import SINGLE_RANK, leave_ranks
from velocitune_core.train.learner import Learner

START, BATCH = 0, 4
READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "nonzero_numpy", "masked_select", "_unique2", "equal"}


class ValuesRead(TorchDispatchMode):
    """Operations whose results, or their shapes, the host must know before it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if (name := function.overloadpacket.__name__) in READS:
            self.found.append(name)
        return function(*arguments, **(named or {}))


@pytest.fixture(autouse=True)
def _no_process_group_is_left() -> Iterator[None]:
    yield
    leave_ranks()


def learner_of(folder: Path, document_start: int | None, **settings: Any) -> Learner:
    training = {"batch_sequences": BATCH, "optimizer": {"learning_rate": 1e-3}, "precision": "float32"}
    execution = Execution(micro_batch_sequences=2, activation_checkpointing=settings.pop("checkpointing", False))
    return Learner(
        str(folder), Training.model_validate(training | settings), execution, SINGLE_RANK, document_start=document_start
    )


def read_in_a_step(learner: Learner) -> list[str]:
    """What is read in a step of two micro-batches, after a first one, which makes the optimizer's state."""
    rows = torch.from_numpy(np.random.default_rng(0).integers(1, VOCABULARY, size=(BATCH, LENGTH)))
    rows[:, LENGTH // 2] = START
    for mode in (ValuesRead(), ValuesRead()):
        with mode:
            assert learner.gradients(rows, np.zeros(BATCH, dtype=np.int64), 1).finite
            learner.apply(1e-3)
    return mode.found


def test_reading_a_value_is_noticed() -> None:
    with ValuesRead() as mode:
        assert bool(torch.ones(2).sum() > 1)
    assert mode.found == ["_local_scalar_dense"]


@pytest.mark.parametrize("document_start", [None, START])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_architecture_reads_a_value(
    tiny_inputs: Path, tmp_path: Path, name: str, document_start: int | None
) -> None:
    if (name, document_start) == ("opt", START):
        pytest.skip("its attention cannot be kept inside documents")
    folder = write_architecture(name, tmp_path, tiny_inputs / "model")
    assert read_in_a_step(learner_of(folder, document_start)) == []


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_engine_path_reads_a_value(tiny_inputs: Path, precision: str, checkpointing: bool) -> None:
    learner = learner_of(tiny_inputs / "model", START, precision=precision, checkpointing=checkpointing)
    assert read_in_a_step(learner) == []
