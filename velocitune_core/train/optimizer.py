"""AdamW for a model that may be sharded: its parameter groups, and its state from before the first step on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from velocitune_core.config import DecayedParameters, Optimizer
from velocitune_core.model.modules import trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def build_optimizer(model: PreTrainedModel, settings: Optimizer) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter, 2019) over the trainable parameters, without any state yet."""
    groups = parameter_groups(model, settings.weight_decay, settings.weight_decay_on)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True)


def parameter_groups(
    model: PreTrainedModel, weight_decay: float, decayed: DecayedParameters = "matrices"
) -> list[dict[str, Any]]:
    """Return optimizer groups: the parameters that are decayed, and those that are not.

    Args:
        decayed: `matrices` are the parameters of two or more dimensions: all but gains and biases.
            `matrices_without_embeddings` leaves out the embeddings of tokens and of learned positions; an output matrix
            that is tied to the embedding is left out with it. `all` decays every parameter.
    """
    embeddings = {
        parameter for each in model.modules() if isinstance(each, nn.Embedding) for parameter in each.parameters()
    }
    undecayed = embeddings if decayed == "matrices_without_embeddings" else set()

    def is_decayed(parameter: nn.Parameter) -> bool:
        return decayed == "all" or (parameter.ndim >= 2 and parameter not in undecayed)

    parameters = list(trainable(model))
    groups = [
        {"params": [each for each in parameters if is_decayed(each)], "weight_decay": weight_decay},
        {"params": [each for each in parameters if not is_decayed(each)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def initialise_state(optimizer: torch.optim.Optimizer) -> None:
    """Create moments of 0 and step counters of 0 for every parameter; does nothing if there is state already.

    An optimizer makes a parameter's state at the first step in which it has a gradient, so the tensors of a checkpoint
    would depend on the data: an expert that no token was routed to would have none. Made here for all parameters at
    once, by a step of learning rate 0 with gradients of 0; call it before the first gradients are computed.
    """
    if optimizer.state:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert all(parameter.grad is None for parameter in parameters), "gradients would be lost"
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for state in optimizer.state.values():
        state["step"].zero_()
