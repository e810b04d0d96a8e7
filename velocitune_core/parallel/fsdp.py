"""Shard a model over the ranks with FSDP2 (torch.distributed.fsdp.fully_shard)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from velocitune_core.parallel.ranks import Ranks


def shard(
    root: nn.Module, layers: Sequence[nn.Module], ranks: Ranks, parameter_dtype: torch.dtype | None = None
) -> None:
    """Shard every parameter, gradient and optimizer moment over the ranks, in place.

    Args:
        root: the module that is called; it takes the parameters outside `layers`.
        layers: modules of `root` that are gathered one at a time.
        parameter_dtype: cast parameters to it for every use, and so compute activations in it; shards, sums of
            gradients and moments stay in float32. A single rank uses the same mechanism, so that the arithmetic does
            not depend on the number of ranks.

    Does nothing for a single rank without a `parameter_dtype`.
    """
    if ranks.world_size == 1 and parameter_dtype is None:
        return
    if not dist.is_initialized():  # FSDP2 needs a process group for a single rank too
        backend = "nccl" if ranks.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    policy = MixedPrecisionPolicy(param_dtype=parameter_dtype, reduce_dtype=torch.float32)
    several = ranks.world_size > 1  # then the root is resharded too: else it stays gathered after an evaluation
    for module in [*layers, root]:
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=several)


def reshard(root: nn.Module) -> None:
    """Free gathered parameters and register the shards again; does nothing for a module that is not sharded.

    FSDP does so in the backward pass. After a forward pass alone, the parameters of a single rank stay gathered, in
    `parameter_dtype`, and `root.parameters()` would give those copies in place of the ones that are trained.
    """
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
