"""The processes of one training: this one's place among them, its device, and sums over all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard


@dataclass(frozen=True)
class Processes:
    """Started by `torchrun`, or just this one."""

    rank: int
    count: int
    device: torch.device
    aside: dist.ProcessGroup | None = None  # on the CPU, for another thread: its messages never meet those of training

    @property
    def first(self) -> bool:
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum `values` over all processes in place, on their own device."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def sum(self, values: Tensor, *, aside: bool = False) -> Tensor:
        """Element-wise sum over all processes, on the CPU."""
        if self.count == 1:
            return values
        total = values.clone() if aside else values.to(self.device, copy=True)
        dist.all_reduce(total, group=self.aside if aside else None)
        return total.cpu()

    def agree(self, flag: bool, *, aside: bool = False) -> bool:
        """True everywhere as soon as it is true in one process."""
        return bool(self.sum(torch.tensor(int(flag)), aside=aside) > 0)

    def votes(self, *flags: bool) -> list[int]:
        """In how many processes each flag is true."""
        return self.sum(torch.tensor(flags, dtype=torch.int64)).tolist()

    def wait(self, *, aside: bool = False) -> None:
        if self.count > 1:
            dist.barrier(group=self.aside if aside else None)


ALONE = Processes(rank=0, count=1, device=torch.device("cpu"))


def start_processes() -> Processes:
    """Join the process group that `torchrun` describes in the environment; without one, stand alone."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if count == 1:
        return Processes(rank, count, device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    aside = dist.new_group(backend="gloo")
    assert isinstance(aside, dist.ProcessGroup), "every process is a member"
    return Processes(rank, count, device, aside)


def stop_processes() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to a GPU from pinned memory, so that the host does not wait for the copy."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def shard(
    root: nn.Module, layers: Sequence[nn.Module], processes: Processes, parameter_dtype: torch.dtype | None = None
) -> None:
    """FSDP2: each process keeps a share of every weight, gradient and optimizer moment.

    With a `parameter_dtype`, weights are cast to it for every use, and so activations too; shares, sums of gradients
    and moments stay in float32. This is also how one process trains in bfloat16, so that the arithmetic does not depend
    on the number of processes. No-op for one process in float32.
    """
    if processes.count == 1 and parameter_dtype is None:
        return
    if not dist.is_initialized():  # one process: FSDP2 wants a group all the same
        backend = "nccl" if processes.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    policy = MixedPrecisionPolicy(param_dtype=parameter_dtype, reduce_dtype=torch.float32)
    several = processes.count > 1  # the root too gives back what it gathered, or it stays whole after an evaluation
    for module in [*layers, root]:
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=several)
