"""How a model turns hidden states into logits: the product with its output matrix, scaled and capped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SMALLEST, LARGEST = 1e-6, 1e6  # products of the probe: a cap changes nothing of the one, and is all of the other


@dataclass(frozen=True)
class LinearHead:
    """Logits = cap · tanh(scale · products / cap), with products = output matrix · hidden states.

    Granite and Cohere scale, Gemma 2 caps, most models do neither.
    """

    scale: float = 1.0
    cap: float | None = None

    def logits(self, products: Tensor) -> Tensor:
        """Return the logits of products of any shape."""
        scaled = products if self.scale == 1 else products * self.scale
        return scaled if self.cap is None else self.cap * torch.tanh(scaled / self.cap)


@torch.no_grad()
def linear_head(model: PreTrainedModel) -> LinearHead | None:
    """Return how a model computes its logits; None if it does more than scale and cap a product.

    Found by running the model's own code after its last layer on known hidden states, with a known output matrix: no
    weight is used, so they may be on the meta device.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return None
    count = head.out_features
    exponents = torch.linspace(math.log(SMALLEST), math.log(LARGEST), count, dtype=torch.float64)
    column = exponents.exp() * torch.where(torch.arange(count) % 2 == 0, 1, -1)  # both signs
    levels = torch.tensor([1.0, 0.5, -2.0], dtype=torch.float64)  # more than one: a norm would make them equal
    hidden = levels[None, :, None].expand(1, len(levels), head.in_features)
    products = levels[:, None] * column
    try:
        with ExitStack() as replacements:
            for body in {model.base_model, model.get_decoder()}:  # OPT calls the decoder inside its base model
                replacements.enter_context(_replaced(body, _BodyOutput([hidden])))
            replacements.enter_context(_replaced(head, lambda given: given[..., :1] * column))
            found = model(input_ids=torch.zeros(1, len(levels), dtype=torch.long), use_cache=False).logits[0].double()
        fitted = _fitted(products, found)
        equal = torch.allclose(fitted.logits(products), found, rtol=1e-5)
    except Exception:  # whatever a model does that this cannot follow, it can do by itself
        return None
    return fitted if equal else None


def _fitted(products: Tensor, logits: Tensor) -> LinearHead:
    """Return the scale of the smallest product, and the cap that the largest reaches, if any."""
    smallest = products.abs().argmin()
    scale = float(logits.flatten()[smallest] / products.flatten()[smallest])
    largest = float(logits.abs().max())
    capped = largest < 0.99 * abs(scale) * float(products.abs().max())
    return LinearHead(1.0 if math.isclose(scale, 1, rel_tol=1e-6) else scale, largest if capped else None)


class _BodyOutput(tuple):
    """What a transformers model returns below its head: `[0]` or `last_hidden_state`, and None for all else."""

    __slots__ = ()

    def __call__(self, *arguments: Any, **named: Any) -> _BodyOutput:
        return self

    def __getattr__(self, name: str) -> Any:
        return self[0] if name == "last_hidden_state" else None


@contextmanager
def _replaced(module: nn.Module, forward: Any) -> Iterator[None]:
    """Let a module compute something else."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
