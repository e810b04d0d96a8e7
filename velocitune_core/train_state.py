"""Model and optimizer state as one flat dictionary of whole tensors, however many processes share the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL, OPTIMIZER, RNG = "model.", "optimizer.", "rng"


def full_state(model: PreTrainedModel, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Tensor]:
    """Whole tensors on the CPU in the first process, nothing in the others; all of them must call.

    With an optimizer, names are prefixed and torch's generator is included; without, they are the model's own.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(model, options=options)
    if optimizer is None:
        return weights
    state = {MODEL + name: tensor for name, tensor in weights.items()}
    moments: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=options)
    for name, values in moments.get("state", {}).items():  # the rest, learning rates and the like, comes from the job
        state |= {f"{OPTIMIZER}state.{name}.{key}": value for key, value in values.items()}
    state[RNG] = torch.get_rng_state()
    return state


def load_full_state(model: PreTrainedModel, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Take up what `full_state` gave; every process passes all of it and keeps its own share."""
    options = StateDictOptions(full_state_dict=True)
    weights: dict[str, Any] = {
        name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)
    }
    set_model_state_dict(model, weights, options=options)
    ours: dict[str, Any] = get_optimizer_state_dict(model, optimizer)  # groups, and which moments there are
    moments: dict[str, Any] = {
        name: {key: tensors[f"{OPTIMIZER}state.{name}.{key}"] for key in keys} for name, keys in ours["state"].items()
    }
    # Nested, not flat: torch cannot load a flattened state that is whole.
    set_optimizer_state_dict(model, optimizer, {**ours, "state": moments}, options=options)
    torch.set_rng_state(tensors[RNG])
