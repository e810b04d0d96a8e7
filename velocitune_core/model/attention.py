"""Gradients of attention with narrow heads in bfloat16 on a CPU, computed in float32: faster there, and more exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NARROW = 32  # elements of a head up to which float32 is faster; with 48 it takes as long, with 64 it is slower
_MARK = "velocitune_differentiates_in_float32"  # of attention modules
_OTHER_WORK = ("position_bias", "softcap", "cache")  # of transformers' own function


def differentiate_in_float32(model: PreTrainedModel) -> None:
    """Let the attention of a model that is trained in bfloat16 on a CPU be `attention`, where it is torch's.

    The function is registered under transformers' name for torch's attention, because some models compare that name;
    modules without the mark get transformers' own function.
    """
    from transformers import AttentionInterface

    AttentionInterface.register("sdpa", attention)
    for module in model.modules():
        if hasattr(module, "is_causal"):
            setattr(module, _MARK, True)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Compute what transformers' `sdpa` does, from (batch, heads, length, width) to (batch, length, heads, width).

    Losses are the same bits. Gradients are more exact where heads are narrow, as many for keys as for queries, and
    attention is causal or has a mask of booleans, and no dropout. All else is left to transformers.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    fits = torch.is_grad_enabled() and hasattr(module, _MARK) and _fits((query, key, value))
    if not (fits and _is_plain(module, attention_mask, settings)):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    output: Any = _Attention.apply(query, key, value, attention_mask, settings.get("scaling"))
    return output.transpose(1, 2).contiguous(), None


def _fits(inputs: tuple[Tensor, ...]) -> bool:
    """Return whether the kernels take the tensors as they are, and float32 is faster."""
    return all(
        each.shape == inputs[0].shape
        and each.shape[-1] <= NARROW
        and each.stride(-1) == 1
        and each.dtype == torch.bfloat16
        and each.device.type == "cpu"
        for each in inputs
    )


def _is_plain(module: nn.Module, mask: Tensor | None, settings: dict[str, Any]) -> bool:
    """Return whether nothing is wanted but what both kernels do."""
    if settings.get("dropout") or any(settings.get(name) is not None for name in _OTHER_WORK):
        return False
    if mask is not None:
        return mask.dtype == torch.bool
    causal = settings.get("is_causal")
    return bool(module.is_causal if causal is None else causal)


class _Attention(Function):
    """The kernel that torch's `scaled_dot_product_attention` calls on a CPU, with the backward pass of its float32."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
    ) -> Tensor:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output, log_sums = kernel(query, key, value, **_settings(mask, scale, query.dtype))
        ctx.save_for_backward(query, key, value, mask, output, log_sums)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, output, log_sums = ctx.saved_tensors
        tensors = [each.float() for each in (*gradients, query, key, value, output)]
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        found = kernel(*tensors, log_sums, **_settings(mask, ctx.scale, torch.float32))
        return *(each.to(query.dtype) for each in found), None, None


def _settings(mask: Tensor | None, scale: float | None, dtype: torch.dtype) -> dict[str, Any]:
    """Return what both kernels take besides tensors of the attention; the mask is added to the scores."""
    added = None
    if mask is not None:
        added = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -torch.inf)
    return {"dropout_p": 0.0, "is_causal": mask is None, "attn_mask": added, "scale": scale}
