"""Shard a model over the ranks with FSDP2 (torch.distributed.fsdp.fully_shard)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

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


def fill(module: nn.Module, full: nn.Module | None, device: torch.device) -> None:
    """Give a sharded module on the meta device the values of the main rank's `full` module; every rank calls.

    Each rank receives one tensor at a time and keeps its shard of it. Tied parameters are tied again by the caller.
    """
    module.to_empty(device=device)
    state = {} if full is None else full.state_dict()
    set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    values = {} if full is None else dict(full.named_buffers())
    for name, buffer in module.named_buffers():  # those that no file holds, such as the frequencies of rotary positions
        if full is not None:
            buffer.copy_(values[name])
        dist.broadcast(buffer, src=0)


def gathered(tensors: Mapping[str, Tensor], ranks: Ranks, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return whole tensors in the main rank's host memory, and nothing on the others; every rank calls.

    One tensor after the other, so no other rank ever holds more than one of them. A tensor with two names is gathered
    once.

    Args:
        dtype: of the floating-point parameters returned; None, and for buffers: their own.
    """
    whole: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        first = names.setdefault(id(tensor), name)
        if first != name:
            if ranks.is_main:
                whole[name] = whole[first]
            continue
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if ranks.is_main:
            rounded = dtype is not None and isinstance(tensor, nn.Parameter) and full.is_floating_point()
            wanted = dtype if rounded else full.dtype
            whole[name] = full.detach().to("cpu", wanted)
    return whole
