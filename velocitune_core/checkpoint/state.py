"""All that a model and its optimizer hold, as one flat dictionary of the very tensors that training works on.

Under FSDP2 they are DTensors, each process holding its share: nothing is gathered. Reading a checkpoint into them
restores the run, whatever the number of processes that wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL, OPTIMIZER, RNG = "model.", "optimizer.", "rng"


def train_state(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, persistent buffers and optimizer moments, live, and a copy of torch's generator.

    Of tied weights there is one. Learning rates and the like are not state: they come from the job.
    """
    _start_moments(optimizer)
    parameters = dict(model.named_parameters())  # tied ones once
    state = {MODEL + name: tensor.detach() for name, tensor in parameters.items()}
    aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(parameters)
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in parameters}
    state |= {MODEL + name: tensor for name, tensor in buffers.items() if name not in aliases}
    for name, parameter in parameters.items():
        state |= {f"{OPTIMIZER}{name}.{key}": value for key, value in optimizer.state[parameter].items()}
    state[RNG] = torch.get_rng_state()
    return state


def whole_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The model's weights under its own names, whole and on the CPU, in the first process; all of them must call."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))  # type: ignore[return-value]


@torch.no_grad()
def _start_moments(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer that has not stepped yet make its moments, by a step of learning rate 0 on gradients of 0.

    Any count of steps that this leaves is what a checkpoint then overwrites, or what is set back here.
    """
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if all(parameter in optimizer.state for parameter in trained):
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for values in optimizer.state.values():
        values["step"].zero_()
