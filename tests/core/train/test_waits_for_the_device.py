"""A step reads no value of a tensor on the way: on a GPU, the host would wait for each until all before it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, write_architecture
from tiny import LENGTH, VOCABULARY
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from velocitune_core.config import Execution, Training
from velocitune_core.parallel.ranks import SINGLE_RANK, leave_ranks
from velocitune_core.train.learner import Learner

START, BATCH = 0, 4
READS = {
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "nonzero_numpy",
    "masked_select",
    "equal",
    "allclose",
    "bincount",
}
SIZED = ("unique", "_unique", "repeat_interleave")  # but of repeats that are one number
LAST = ["cpu", "numpy"]  # the losses and the norm, once all is under way
ONCE = {
    None: LAST,
    START: ["numpy", "numpy", *LAST],
}  # by micro-batch, of rows that are on the host: several documents?
READING_METHODS = ("tolist", "numpy", "cpu", "__array__")  # of which a CPU tensor makes no operation


class ValuesRead(TorchDispatchMode):
    """Operations whose results, or their shapes, the host must know before it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in READS or name.startswith(SIZED) or _is_mask(name, arguments):
            self.found.append(name)
        return function(*arguments, **(named or {}))


def _is_mask(name: str, arguments: Any) -> bool:
    if name not in {"index", "index_put", "index_put_", "_index_put_impl_"}:
        return False
    return any(each is not None and each.dtype in {torch.bool, torch.uint8} for each in arguments[1])


class HostReads(TorchFunctionMode):
    """Methods that bring values of a tensor to the host; on a CPU nothing is dispatched for them.

    The host is meant by its name: a `torch.device` here is the one that is trained on.
    """

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        name, named = getattr(function, "__name__", ""), named or {}
        to_host = name == "to" and "cpu" in (*filter(_is_text, arguments[1:]), named.get("device"))
        if name in READING_METHODS or to_host:
            self._found.append(name)
        return function(*arguments, **named)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


@contextmanager
def values_read() -> Iterator[list[str]]:
    with ValuesRead() as mode, HostReads(mode.found):
        yield mode.found


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
    for reads in (values_read(), values_read()):
        with reads as found:
            assert learner.gradients(rows, np.zeros(BATCH, dtype=np.int64), 1).finite
            learner.apply(1e-3)
    return found


READINGS: dict[str, Callable[[torch.Tensor], Any]] = {
    "bool": lambda each: bool(each.sum() > 1),
    "item": lambda each: each[0].item(),
    "float": lambda each: float(each[0]),
    "tolist": lambda each: each.tolist(),
    "cpu": lambda each: each.cpu(),
    "numpy": lambda each: each.numpy(),
    "asarray": np.asarray,
    "to": lambda each: each.to("cpu"),
    "to device": lambda each: each.to(device="cpu"),
    "mask": lambda each: each[each > 0],
    "put": lambda each: each.clone().__setitem__(each > 0, torch.ones(2, dtype=each.dtype)),
    "repeat_interleave": lambda each: each.repeat_interleave(each),
    "nonzero": lambda each: each.nonzero(),
    "where": lambda each: torch.where(each > 0),
    "unique": lambda each: each.unique(),
    "unique_consecutive": lambda each: each.unique_consecutive(),
    "equal": lambda each: torch.equal(each, each),
    "allclose": lambda each: torch.allclose(each, each),
    "bincount": lambda each: each.bincount(),
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_reading_a_value_is_noticed(reading: Callable[[torch.Tensor], Any]) -> None:
    given = torch.ones(2, dtype=torch.int64)
    with values_read() as found:
        reading(given)
    assert found


def test_what_reads_no_value_is_not_taken_for_it() -> None:
    given = torch.ones(2, dtype=torch.int64)
    with values_read() as found:
        given[given] + given.to(torch.float32) + torch.where(given > 0, given, 0) + given.repeat_interleave(1)
    assert found == []


@pytest.mark.parametrize("document_start", [None, START])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_architecture_reads_a_value(
    tiny_inputs: Path, tmp_path: Path, name: str, document_start: int | None
) -> None:
    if (name, document_start) == ("opt", START):
        pytest.skip("its attention cannot be kept inside documents")
    folder = write_architecture(name, tmp_path, tiny_inputs / "model")
    assert read_in_a_step(learner_of(folder, document_start)) == ONCE[document_start]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_engine_path_reads_a_value(tiny_inputs: Path, precision: str, checkpointing: bool) -> None:
    learner = learner_of(tiny_inputs / "model", START, precision=precision, checkpointing=checkpointing)
    assert read_in_a_step(learner) == ONCE[START]
