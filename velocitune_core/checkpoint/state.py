"""The parameters of a model and the state of its optimizer as one flat dictionary of live tensors.

Under FSDP2 they are DTensors, each rank holding its shard, so nothing is gathered. Reading a checkpoint into them
restores the run, whatever the number of ranks that wrote it.

torch.distributed.checkpoint.state_dict's optimizer helpers are not used: they flatten hyperparameters into numbers,
which safetensors cannot hold, and leave out a parameter that has had no gradient, so that a fresh run, which makes the
state of all parameters, cannot read what it saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL, OPTIMIZER, RNG = "model.", "optimizer.", "rng"


def train_state(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return parameters, persistent buffers and optimizer state, live, and a copy of torch's generator state.

    Tied parameters are there once. Hyperparameters are left out: they come from the job. The optimizer must have the
    state of every parameter already (see train/optimizer.py), or names would depend on which ones had a gradient.
    """
    parameters = dict(model.named_parameters())  # tied ones once
    state = {MODEL + name: tensor.detach() for name, tensor in parameters.items()}
    aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(parameters)
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in parameters}
    state |= {MODEL + name: tensor for name, tensor in buffers.items() if name not in aliases}
    for name, parameter in parameters.items():
        assert parameter in optimizer.state or not parameter.requires_grad, f"{name} has no optimizer state yet"
        state |= {f"{OPTIMIZER}{name}.{key}": value for key, value in optimizer.state.get(parameter, {}).items()}
    state[RNG] = torch.get_rng_state()
    return state
