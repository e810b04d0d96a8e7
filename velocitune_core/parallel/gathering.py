"""How often a sharded model's parameters are gathered and its gradients summed: per layer, or once a step."""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from velocitune_core.parallel.ranks import Ranks

GRADIENT_BYTES = 4  # per parameter: sums are in float32
SHARE = 0.25  # of a device's memory that whole parameters and gradients may take under `auto`


class Gathering:
    """The traffic between ranks within a step, against memory; without effect on a module that is not sharded.

    Per layer, parameters are gathered for the forward pass of every micro-batch and again for its backward pass, which
    ends in a sum of gradients over the ranks; only the layer in use is whole. Per step, parameters are gathered in the
    first micro-batch and gradients summed in the last; both are whole in between, as in ZeRO stage 1 (Rajbhandari et
    al., 2020).
    """

    def __init__(self, root: nn.Module, per_step: bool) -> None:
        self._root, self.per_step = root, per_step

    def before_micro_batch(self, *, last: bool) -> None:
        """Prepare for the forward and backward pass of a micro-batch of a step."""
        if isinstance(self._root, FSDPModule) and self.per_step:
            self._root.set_reshard_after_forward(False)
            self._root.set_reshard_after_backward(last)
            self._root.set_requires_gradient_sync(last)

    def before_evaluation(self, ranks: Ranks) -> None:
        """Prepare for forward passes alone: the layers of several ranks are gathered one at a time."""
        if isinstance(self._root, FSDPModule) and self.per_step and ranks.world_size > 1:
            self._root.set_reshard_after_forward(True)


def gathers_per_step(parameters: int, parameter_bytes: int, device_bytes: int) -> bool:
    """Return whether `auto` gathers per step: whole parameters and gradients take at most SHARE of the device.

    Args:
        parameter_bytes: per parameter, in the dtype that is computed in.
        device_bytes: memory of one rank's device.
    """
    return parameters * (parameter_bytes + GRADIENT_BYTES) <= SHARE * device_bytes


def device_bytes(ranks: Ranks) -> int:
    """Return the memory of this rank's GPU, or its even share of the host's."""
    if ranks.device.type == "cuda":
        return torch.cuda.get_device_properties(ranks.device).total_memory
    on_this_host = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world_size))
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // on_this_host
