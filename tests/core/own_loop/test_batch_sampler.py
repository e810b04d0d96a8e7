"""Batches by group weights: which examples, in which step, on which rank, and after a resume."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from batch_samplers import LABELS, LAYOUTS, NO_CATS, WEIGHTS, sampler, shares, take

from velocitune_core import MixtureBatchSampler
from velocitune_core.mixture import MixtureError


def test_groups_come_by_weight_and_all_examples_of_a_group_equally_often() -> None:
    batches = take(ours := sampler(), 40)
    assert all(len(batch) == 24 for batch in batches)
    assert shares(batches) == pytest.approx(WEIGHTS, abs=0.002)
    for name in WEIGHTS:
        seen = Counter(example for batch in batches for example in batch if LABELS[example] == name)
        assert len(seen) == LABELS.count(name) and max(seen.values()) - min(seen.values()) <= 1
    assert ours.drawn == Counter(LABELS[example] for batch in batches for example in batch)


def test_labels_in_any_form_give_the_same_draws() -> None:
    numbers = [{"cat": 0, "cow": 1, "dog": 2}[label] for label in LABELS]
    by_number = {0: 0.5, np.int64(1): 0.2, "2": 0.3}
    assert take(sampler(groups=np.array(LABELS)), 5) == take(sampler(), 5)
    forms = [numbers, np.array(numbers), np.array(numbers, dtype=np.int8), list(torch.tensor(numbers))]
    draws = [take(sampler(groups=each, weights=by_number), 5) for each in forms]
    assert draws[0] == draws[1] == draws[2] == draws[3]


def test_several_data_sets_are_indexed_one_after_the_other() -> None:
    texts = {"code": ["x"] * 30, "web": 50}
    batches = take(sampler(groups=texts, weights={"code": 3, "web": 1}), 10)
    code = [example for batch in batches for example in batch if example < 30]
    assert len(code) / 240 == pytest.approx(0.75, abs=0.01)
    assert max(max(batch) for batch in batches) <= 79
    other_order = take(sampler(groups={"web": 50, "code": 30}, weights={"code": 3, "web": 1}), 10)
    assert [[(each + 50) % 80 for each in batch] for batch in batches] == other_order


@pytest.mark.parametrize(("world_size", "size"), LAYOUTS)
def test_ranks_and_micro_batches_share_out_the_same_draw(world_size: int, size: int) -> None:
    whole = take(sampler(), 6)
    parts = 24 // (world_size * size)
    ranks = [
        take(sampler(rank=rank, world_size=world_size, micro_batch_size=size), 6 * parts) for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        dealt = [ranks[turn % world_size][step * parts + turn // world_size] for turn in range(parts * world_size)]
        assert list(itertools.chain(*dealt)) == batch


@pytest.mark.parametrize(("world_size", "size"), [(2, 12), (2, 4), (4, 2)])
def test_accelerate_shards_as_the_sampler_does(world_size: int, size: int) -> None:
    from accelerate.data_loader import BatchSamplerShard  # what `accelerator.prepare` puts around it

    for rank in range(world_size):
        one_rank = list(sampler(rank=rank, world_size=world_size, micro_batch_size=size, steps=5))
        all_ranks: Any = sampler(micro_batch_size=size, steps=5)
        assert list(BatchSamplerShard(all_ranks, world_size, rank)) == one_rank
        assert len(BatchSamplerShard(all_ranks, world_size, rank)) == len(one_rank)
    if size * world_size == 24:
        for rank in range(world_size):
            split = list(BatchSamplerShard(sampler(steps=5), world_size, rank, split_batches=True))  # type: ignore
            assert split == list(sampler(rank=rank, world_size=world_size, steps=5))


def test_lengths_may_be_integers_of_numpy() -> None:
    ours = sampler(groups={"cat": np.int64(30), "dog": np.int32(20), "cow": 10})
    assert ours.examples == {"cat": 30, "dog": 20, "cow": 10}


def test_a_pass_ends_and_the_next_one_goes_on() -> None:
    ours = sampler(steps=4, micro_batch_size=12)
    assert len(ours) == 8
    first = list(ours)
    ours.set_weights(NO_CATS)
    second = list(ours)
    assert len(first) == len(second) == 8
    assert shares(first)["cat"] == pytest.approx(0.5, abs=0.05) and shares(second)["cat"] == 0
    with pytest.raises(TypeError):
        len(sampler())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": {"cat": 1.0, "dog": 1.0}}, r"\['cat', 'dog'\], the data \['cat', 'cow', 'dog'\]"),
        ({"weights": {"cat": -1.0, "dog": 1.0, "cow": 1.0}}, "non-negative"),
        ({"weights": {"cat": float("nan"), "dog": 1.0, "cow": 1.0}}, "finite"),
        ({"weights": {"cat": None, "dog": 1.0, "cow": 1.0}}, r"weights\['cat'\] is None, but must be a finite number"),
        ({"weights": [0.5, 0.3, 0.2]}, "must be a mapping"),
        ({"weights": {0: 1, "0": 1}}, "the same name"),
        ({"batch_size": 25, "world_size": 2}, "of world_size 2, as ranks get equal parts; the next one is 26"),
        ({"micro_batch_size": 7}, "of world_size 1 times micro_batch_size 7; the next one is 28"),
        ({"batch_size": 0}, "batch_size 0 must be at least 1; give a larger one"),
        ({"batch_size": 24.5}, r"batch_size 24.5 must be an integer \(it is a float\); round it"),
        ({"micro_batch_size": float("nan")}, "micro_batch_size nan must be an integer"),
        ({"world_size": "2"}, "world_size '2' must be an integer"),
        ({"seed": 1.5}, "seed 1.5 must be an integer"),
        ({"steps": 0}, "steps 0"),
        ({"steps": len(LABELS) / 24}, r"steps 2.625 must be an integer .* or give None: an endless pass"),
        ({"rank": 2, "world_size": 2}, r"rank 2 must be in \[0, world_size 2\); give each process its own"),
        ({"rank": -1, "world_size": 2}, r"rank -1 must be in \[0, world_size 2\)"),
        ({"max_epochs": float("nan")}, "max_epochs is nan"),
        ({"max_epochs": 0}, "max_epochs 0.0 must be above 0"),
        ({"groups": {"cat": [], "dog": 3, "cow": 2}}, r"groups \['cat'\] need at least one example; leave them out"),
        ({"groups": {"cat": 2.5, "dog": 3, "cow": 2}}, r"groups\['cat'\] 2.5 must be an integer"),
        ({"groups": []}, "groups are empty"),
        ({"groups": np.zeros((4, 1))}, r"one label per example, .* and labels like \[0.0\] are none"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(MixtureError, match=message):
        sampler(**changed)


def test_numbers_of_whole_value_and_a_series_of_weights_are_taken() -> None:
    weights = pd.Series([2.0, 1.0, 1.0], index=["cat", "dog", "cow"])
    ours: Any = {"weights": weights, "batch_size": 24.0, "micro_batch_size": torch.tensor(6.0), "steps": np.float32(4)}
    whole = {"weights": weights.to_dict(), "batch_size": 24, "micro_batch_size": 6, "steps": 4}
    assert list(sampler(**ours)) == list(sampler(**whole))


def test_steps_are_integers_of_any_kind() -> None:
    ours = sampler()
    take(ours, 4)
    for step in (2.5, "3"):
        with pytest.raises(MixtureError, match=r"from_step .* must be an integer"):
            ours.set_weights(NO_CATS, from_step=step)  # type: ignore[arg-type]
        with pytest.raises(MixtureError, match=r"step .* must be an integer"):
            ours.state_dict(step=step)  # type: ignore[arg-type]
    assert ours.set_weights(NO_CATS, from_step=np.int64(6)) == 6
    json.dumps(sampler(seed=np.int64(3), batch_size=np.int32(24), steps=np.int8(4)).state_dict(step=np.int64(0)))


def test_groups_that_are_used_up_are_named_and_change_nothing() -> None:
    ours = sampler(max_epochs=1)
    batches = take(ours, 2)  # 63 examples, 24 per batch
    before = ours.state_dict()
    with pytest.raises(
        MixtureError, match=r"max_epochs 1.0 leaves too few examples for a batch of 24 at step 2 .*'cow'"
    ):
        take(ours, 1)
    assert ours.state_dict() == before and ours.state_dict(step=0)["sampler"]["step"] == 0
    ours.load_state_dict(ours.state_dict(step=1))
    assert take(ours, 1) == batches[1:]


def test_one_long_label_costs_no_memory_for_the_others() -> None:
    labels = ["a", "b" * 10_000, *["a"] * 2_000]
    tracemalloc.start()
    ours = MixtureBatchSampler(labels, {"a": 1, labels[1]: 1}, 4)
    assert tracemalloc.get_traced_memory()[1] < 2e6  # one array of all labels at this width: 80 MB
    tracemalloc.stop()
    assert ours.examples == {"a": 2_001, labels[1]: 1}
