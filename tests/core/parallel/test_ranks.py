"""Collectives of two ranks, and of a single one; a model sharded over either."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from forked import ForkedRun
from tiny import LENGTH, VOCABULARY, llama
from torch.distributed.tensor import DTensor

from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.model.modules import transformer_layers
from velocitune_core.parallel.fsdp import reshard, shard
from velocitune_core.parallel.ranks import DEVICE_TIMEOUT, HOST_TIMEOUT, SINGLE_RANK, join_ranks, leave_ranks

TWO_RANKS = """
import os
import torch
import torch.distributed as dist
from velocitune_core.parallel.ranks import DEVICE_TIMEOUT, HOST_TIMEOUT, join_ranks, leave_ranks

ranks = join_ranks()
timeouts = [
    group._get_backend(torch.device("cpu")).options._timeout
    for group in (dist.group.WORLD, ranks.control_group, ranks.checkpoint_group)
]
assert timeouts == [DEVICE_TIMEOUT, HOST_TIMEOUT, HOST_TIMEOUT], timeouts
assert (ranks.world_size, ranks.is_main) == (2, ranks.rank == 0)
mine = torch.tensor([1.0, 10.0]) * (ranks.rank + 1)
for over in (False, True):
    assert ranks.sum(mine, over_checkpoint_group=over).tolist() == [3.0, 30.0]
    assert ranks.any(ranks.rank == 1, over_checkpoint_group=over)
    assert not ranks.any(False, over_checkpoint_group=over)
assert mine.tolist() == [1.0 * (ranks.rank + 1), 10.0 * (ranks.rank + 1)]  # sum leaves its argument
assert ranks.count_true(True, ranks.rank == 0, False) == [2, 1, 0]
assert ranks.broadcast_numbers([[30, 20], [40, 20, 10]][ranks.rank]) == [30, 20]
assert ranks.broadcast_numbers([[], [40]][ranks.rank]) == []
assert ranks.all_reduce(mine) is mine and mine.tolist() == [3.0, 30.0]
leave_ranks()
leave_ranks()  # without a group it does nothing
os.write(1, b"done\\n")  # at once
"""


def test_collectives_of_two_ranks(tmp_path: Path) -> None:
    (tmp_path / "two_ranks.py").write_text(TWO_RANKS)
    run = ForkedRun([], 2, {"PYTHONPATH": str(tmp_path)}, program="two_ranks")
    _, said = run.communicate(120)
    assert run.returncode == 0, said
    assert said.count("done") == 2


def test_a_rank_waits_for_what_another_writes_and_not_for_days() -> None:
    """The checkpoint of 7 B parameters (docs/SCALING.md), on a disk of 10 MB/s."""
    checkpoint_bytes = 80.9e9
    assert timedelta(seconds=checkpoint_bytes / 10e6) < HOST_TIMEOUT
    assert 2 * DEVICE_TIMEOUT < HOST_TIMEOUT  # a rank may wait on the host for one that waits for its device
    assert timedelta(days=1) > HOST_TIMEOUT  # for a rank that will never answer


def test_collectives_of_a_single_rank() -> None:
    values = torch.tensor([1, 2])
    assert SINGLE_RANK.sum(values).tolist() == SINGLE_RANK.all_reduce(values).tolist() == [1, 2]
    assert SINGLE_RANK.any(True) and not SINGLE_RANK.any(False)
    assert SINGLE_RANK.count_true(True, False) == [1, 0]
    assert SINGLE_RANK.broadcast_numbers([3, 1]) == [3, 1]


def test_without_torchrun_a_process_is_a_single_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    ranks = join_ranks()
    assert (ranks.rank, ranks.world_size, ranks.checkpoint_group) == (0, 1, None)


@pytest.fixture
def _no_process_group_is_left() -> Iterator[None]:
    yield
    leave_ranks()


def sharded(parameter_dtype: torch.dtype | None) -> NextTokenLoss:
    loss = NextTokenLoss(llama().train())
    shard(loss, transformer_layers(loss.model), SINGLE_RANK, parameter_dtype)
    return loss


def test_a_single_rank_in_float32_is_not_sharded() -> None:
    loss = sharded(None)
    assert not any(isinstance(each, DTensor) for each in loss.parameters())
    reshard(loss)  # does nothing


@pytest.mark.usefixtures("_no_process_group_is_left")
def test_a_single_rank_in_bfloat16_trains_float32_shards() -> None:
    loss = sharded(torch.bfloat16)
    tokens = torch.randint(VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    loss(tokens).sum().backward()
    for parameter in loss.parameters():
        assert isinstance(parameter, DTensor) and parameter.dtype == torch.float32
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32


@pytest.mark.usefixtures("_no_process_group_is_left")
def test_after_a_forward_pass_alone_resharding_gives_the_trained_parameters_back() -> None:
    loss = sharded(torch.bfloat16)
    trained = list(loss.parameters())
    with torch.no_grad():
        loss(torch.zeros(2, LENGTH, dtype=torch.long))
    assert any(now is not before for now, before in zip(loss.parameters(), trained, strict=True))  # else needless
    reshard(loss)
    assert all(now is before for now, before in zip(loss.parameters(), trained, strict=True))
