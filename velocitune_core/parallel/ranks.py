"""The ranks of one run: this process's rank, its device, and collectives over all ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run: started by `torchrun`, or alone.

    `checkpoint_group` is a gloo group of its own, so that collectives of the checkpoint thread cannot interleave with
    those of the training.
    """

    rank: int
    world_size: int
    device: torch.device
    checkpoint_group: dist.ProcessGroup | None = (
        None  # on the CPU, for another thread: its messages never meet those of training
    )

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum `values` over all ranks in place, on their own device."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def sum(self, values: Tensor, *, over_checkpoint_group: bool = False) -> Tensor:
        """Sum element by element over all ranks; the result is on the CPU."""
        if self.world_size == 1:
            return values
        total = values.clone() if over_checkpoint_group else values.to(self.device, copy=True)
        dist.all_reduce(total, group=self.checkpoint_group if over_checkpoint_group else None)
        return total.cpu()

    def any(self, flag: bool, *, over_checkpoint_group: bool = False) -> bool:
        """Return on every rank whether the flag is true on at least one."""
        return bool(self.sum(torch.tensor(int(flag)), over_checkpoint_group=over_checkpoint_group) > 0)

    def count_true(self, *flags: bool) -> list[int]:
        """Count the ranks on which each flag is true."""
        return self.sum(torch.tensor(flags, dtype=torch.int64)).tolist()

    def barrier(self, *, over_checkpoint_group: bool = False) -> None:
        if self.world_size > 1:
            dist.barrier(group=self.checkpoint_group if over_checkpoint_group else None)


SINGLE_RANK = Ranks(rank=0, world_size=1, device=torch.device("cpu"))


def join_ranks() -> Ranks:
    """Join the process group that `torchrun` describes in the environment; without one, stand alone."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if count == 1:
        return Ranks(rank, count, device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    checkpoint_group = dist.new_group(backend="gloo")
    assert isinstance(checkpoint_group, dist.ProcessGroup), "every process is a member"
    return Ranks(rank, count, device, checkpoint_group)


def leave_ranks() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to a GPU from pinned memory, so that the host does not wait for the copy."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def shard(
    root: nn.Module, layers: Sequence[nn.Module], ranks: Ranks, parameter_dtype: torch.dtype | None = None
) -> None:
    """FSDP2: each process keeps a share of every weight, gradient and optimizer moment.

    With a `parameter_dtype`, weights are cast to it for every use, and so activations too; shares, sums of gradients
    and moments stay in float32. This is also how one process trains in bfloat16, so that the arithmetic does not depend
    on the number of processes. No-op for one process in float32.
    """
    if ranks.world_size == 1 and parameter_dtype is None:
        return
    if not dist.is_initialized():  # one process: FSDP2 wants a group all the same
        backend = "nccl" if ranks.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    policy = MixedPrecisionPolicy(param_dtype=parameter_dtype, reduce_dtype=torch.float32)
    several = ranks.world_size > 1  # the root too gives back what it gathered, or it stays whole after an evaluation
    for module in [*layers, root]:
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=several)


def reshard(root: nn.Module) -> None:
    """Free what a forward pass without a backward pass has gathered: parameters are this rank's shares again."""
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
