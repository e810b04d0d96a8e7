"""Questions about the modules of a loaded model, and dropout turned off in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def transformer_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the stacked blocks of a model: its longest ModuleList; empty if it has none."""
    from torch import nn

    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len)) if lists else []


def trainable(model: PreTrainedModel) -> Iterator[torch.nn.Parameter]:
    """Yield the parameters that require a gradient; tied ones once."""
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def count_parameters(model: PreTrainedModel) -> int:
    """Count the trainable parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in trainable(model))


def turn_dropout_off(model: PreTrainedModel) -> list[str]:
    """Set every dropout probability of the modules to 0; return the names of the classes that had one above 0.

    Losses of proxies, targets and training are then of the same function. The configuration, and so the saved model,
    keeps its values.
    """
    from torch import nn

    found: set[str] = set()
    for module in model.modules():
        names = ["p"] if isinstance(module, nn.Dropout) else [name for name in vars(module) if "drop" in name]
        for name in names:
            if isinstance(probability := getattr(module, name), float) and probability > 0:
                setattr(module, name, 0.0)
                found.add(type(module).__name__ if name != "p" else "Dropout")
    return sorted(found)
