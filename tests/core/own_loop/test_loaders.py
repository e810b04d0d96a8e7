"""The sampler inside the loaders that people use, with worker processes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from velocitune_core import MixtureBatchSampler
from velocitune_core.own_loop import prefetch_lag

SIZES = {"cat": 40, "dog": 30}
BOTH, ONLY_DOGS = {"cat": 0.7, "dog": 0.3}, {"cat": 0.0, "dog": 1.0}
CHANGED_AFTER = 3  # batches
WORKERS = {"multiprocessing_context": "fork", "prefetch_factor": 3, "persistent_workers": True, "num_workers": 2}


class Numbers(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index

    def __len__(self) -> int:
        return 70


def sampler(**changed: Any) -> MixtureBatchSampler:
    return MixtureBatchSampler(SIZES, BOTH, 8, seed=3, **changed)


def loader(batches: MixtureBatchSampler, workers: bool = False, kind: Any = DataLoader) -> Any:
    return kind(Numbers(), batch_sampler=batches, collate_fn=list, **(WORKERS if workers else {}))


def prepared(batches: MixtureBatchSampler, workers: bool = False) -> Any:
    """A loader as `accelerator.prepare` returns it on rank 0 of 2."""
    from accelerate.data_loader import prepare_data_loader

    return prepare_data_loader(loader(batches, workers), num_processes=2, process_index=0)


def has_cats(batch: list[int]) -> bool:
    return min(batch) < SIZES["cat"]


@pytest.mark.parametrize("workers", [False, True])
@pytest.mark.parametrize("accelerate", [False, True])
def test_the_lag_of_new_weights_is_the_documented_number(accelerate: bool, workers: bool) -> None:
    batches = sampler(micro_batch_size=4) if accelerate else sampler()
    made = prepared(batches, workers) if accelerate else loader(batches, workers)
    lag = prefetch_lag(2, 3, accelerate=accelerate) if workers else prefetch_lag(0, accelerate=accelerate)
    seen = []
    for done, batch in enumerate(itertools.islice(made, 20), 1):
        seen.append(has_cats(batch))
        if done == CHANGED_AFTER:
            batches.set_weights(ONLY_DOGS)
    assert seen == [True] * (CHANGED_AFTER + lag) + [False] * (20 - CHANGED_AFTER - lag)


def test_a_loaders_own_attributes_give_its_lag() -> None:
    for workers, lag in ((False, 0), (True, 6)):
        made = loader(sampler(), workers)
        assert prefetch_lag(made.num_workers, made.prefetch_factor) == lag
    assert prefetch_lag(3) == 6


@pytest.mark.parametrize("make", [loader, prepared])
def test_nothing_is_drawn_ahead_of_the_weights_of_a_pass(make: Any) -> None:
    batches = sampler(steps=CHANGED_AFTER, micro_batch_size=4)
    made = make(batches, workers=True)
    first = list(made)
    batches.set_weights(ONLY_DOGS)
    assert all(has_cats(batch) for batch in first)
    second = list(made)
    assert len(second) == len(first)
    assert not any(has_cats(batch) for batch in second)


def test_a_named_step_gives_the_same_draws_with_any_number_of_workers() -> None:
    def run(workers: bool) -> list[list[int]]:
        batches = sampler()
        received = []
        for done, batch in enumerate(itertools.islice(loader(batches, workers), 20), 1):
            received.append(batch)
            if done == CHANGED_AFTER:
                batches.set_weights(ONLY_DOGS, from_step=done + 8)
        return received

    assert run(workers=False) == run(workers=True)


def test_a_loop_with_workers_that_stops_anywhere_goes_on_with_the_same_batches() -> None:
    def steps(batches: MixtureBatchSampler, first: int) -> Iterator[tuple[list[int], str]]:
        """Batches, and what a checkpoint after each of them would hold."""
        for step, batch in enumerate(itertools.islice(loader(batches, workers=True), 20 - first), first + 1):
            if step % 5 == 0:
                batches.set_weights(ONLY_DOGS if step % 2 else BOTH)
            yield batch, json.dumps(batches.state_dict(step))

    whole = list(steps(sampler(), 0))
    for stopped_at in (4, 11):  # 11: weights that were set at step 10 have not acted yet
        resumed = sampler()
        resumed.load_state_dict(json.loads(whole[stopped_at - 1][1]))
        rest = [batch for batch, _ in steps(resumed, stopped_at)]
        assert rest == [batch for batch, _ in whole[stopped_at:]]


def test_a_state_is_loaded_by_torch_as_data_alone() -> None:
    batches = sampler()
    batches.set_weights(ONLY_DOGS, from_step=4)
    torch.save(state := batches.state_dict(), file := BytesIO())
    file.seek(0)
    assert torch.load(file, weights_only=True) == state


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata's call of torch
@pytest.mark.parametrize("workers", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", [4, None])
def test_the_state_of_torchdatas_loader_holds_that_of_the_sampler(workers: bool, steps: int | None) -> None:
    kind = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    weights = itertools.cycle([{"cat": 0.9, "dog": 0.1}, ONLY_DOGS, {"cat": 0.2, "dog": 0.8}])
    after_step = {step: next(weights) for step in (4, 8)}

    def run(state: str | None, first: float) -> tuple[list[list[int]], dict[float, str]]:
        """Return batches, and checkpoints by steps done: after a batch, and (.5) after new weights."""
        batches = sampler(steps=steps)
        made = loader(batches, workers, kind)
        if state:
            made.load_state_dict(json.loads(state))
        received, states, step = [], {}, int(first)
        while step < 12:
            for batch in made:
                received.append(batch)
                step += 1
                if not steps and step in after_step:
                    batches.set_weights(after_step[step])
                states[step] = json.dumps(made.state_dict())
                if step == 12:
                    break
            if steps and step in after_step:
                batches.set_weights(after_step[step])
                states[step + 0.5] = json.dumps(made.state_dict())
        return received, states

    whole, states = run(None, 0)
    for saved, state in states.items():
        if saved in (1, 4, 4.5, 5, 7, 8, 8.5):
            assert run(state, saved)[0] == whole[int(saved) :], saved
