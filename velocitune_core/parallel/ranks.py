"""The ranks of one run: this process's rank, its device, and collectives over all ranks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

# A rank that has exited ends the wait of the others at once; these bound the wait for one that is alive.
DEVICE_TIMEOUT = timedelta(minutes=30)  # between two collectives of a step
HOST_TIMEOUT = timedelta(hours=4)  # rank 0 may write a model of any size, or a slow disk a shard, in the meantime


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run: started by `torchrun`, or alone.

    Decisions are exchanged over gloo, on the CPU, so that they never wait for the GPU: those of the training loop over
    `control_group`, those of the checkpoint thread over `checkpoint_group`, so that the two cannot interleave. Both
    have HOST_TIMEOUT, because ranks wait there for what another one writes.
    """

    rank: int
    world_size: int
    device: torch.device
    control_group: dist.ProcessGroup | None = None  # None for a single rank
    checkpoint_group: dist.ProcessGroup | None = None  # likewise

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes results and events."""
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum `values` over all ranks in place, on their own device."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def sum(self, values: Tensor, *, over_checkpoint_group: bool = False) -> Tensor:
        """Return the element-wise sum of CPU tensors over all ranks; `values` stay as they are."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total, group=self.checkpoint_group if over_checkpoint_group else self.control_group)
        return total

    def broadcast(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the main rank's values on every rank."""
        own = np.array(values, dtype=np.float64)
        if self.world_size == 1:
            return own
        shared = torch.from_numpy(own)
        dist.broadcast(shared, src=0, group=self.control_group)
        return shared.numpy()

    def broadcast_numbers(self, numbers: list[int]) -> list[int]:
        """Return the main rank's list on every rank; the lists of the others may have other lengths."""
        if self.world_size == 1:
            return numbers
        length = torch.tensor(len(numbers))
        dist.broadcast(length, src=0, group=self.control_group)
        shared = (
            torch.tensor(numbers, dtype=torch.int64) if self.is_main else torch.empty(int(length), dtype=torch.int64)
        )
        dist.broadcast(shared, src=0, group=self.control_group)
        return shared.tolist()

    def any(self, flag: bool, *, over_checkpoint_group: bool = False) -> bool:
        """Return on every rank whether the flag is true on at least one."""
        return bool(self.sum(torch.tensor(int(flag)), over_checkpoint_group=over_checkpoint_group) > 0)

    def count_true(self, *flags: bool) -> list[int]:
        """Count the ranks on which each flag is true."""
        return self.sum(torch.tensor(flags, dtype=torch.int64)).tolist()


SINGLE_RANK = Ranks(rank=0, world_size=1, device=torch.device("cpu"))


def join_ranks() -> Ranks:
    """Join the process group that `torchrun` describes in the environment; without one, be a single rank."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world_size == 1:
        return Ranks(rank, world_size, device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=DEVICE_TIMEOUT)
    control_group, checkpoint_group = (dist.new_group(backend="gloo", timeout=HOST_TIMEOUT) for _ in range(2))
    assert isinstance(control_group, dist.ProcessGroup), "every rank is a member"
    assert isinstance(checkpoint_group, dist.ProcessGroup), "every rank is a member"
    return Ranks(rank, world_size, device, control_group, checkpoint_group)


def leave_ranks() -> None:
    """Destroy the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return a copy on the device; to a GPU from pinned memory, so that the host does not wait for it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
