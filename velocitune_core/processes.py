"""The processes of one training: this one's place among them, its device, and sums over all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Processes:
    """Started by `torchrun`, or just this one."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over all processes, on the CPU."""
        if self.count == 1:
            return values
        total = values.to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def agree(self, flag: bool) -> bool:
        """True everywhere as soon as it is true in one process."""
        return bool(self.sum(torch.tensor(int(flag))) > 0)

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()


def start_processes() -> Processes:
    """Join the process group that `torchrun` describes in the environment; without one, stand alone."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if count > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(rank, count, device)


def stop_processes() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def shard(model: PreTrainedModel, processes: Processes) -> None:
    """FSDP2: each process keeps a share of every layer's weights, gradients and optimizer state. No-op for one."""
    if processes.count == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(processes.device.type, (processes.count,))
    layers: Any = model.base_model.layers
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
