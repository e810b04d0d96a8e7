"""Whether a saved model is the one that was trained: loaded again as a user loads it, and compared on one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose, nan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.linalg import vector_norm

from velocitune_core.model.complete import compare_weights, load_with_report
from velocitune_core.model.folder import ModelError
from velocitune_core.model.headers import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-3  # nats per token, in float32
BATCH_TOKENS = 1024  # of the held-out rows that are compared
_ON_HOST_TOKENS = 256  # of them, of a model that does not fit into the device beside the training
_SPARE = 1.2  # memory of a model on the device, over its weights
_BYTES_PER_LOGIT = 12  # as the model makes it, in float32, and its logarithm


@dataclass(frozen=True)
class Trained:
    """What a model was like in training, just before it was saved."""

    rows: Tensor  # token ids (rows, length)
    nats: Tensor  # loss of each prediction without a document mask, (rows, length − 1), on the host
    norms: Mapping[str, float]  # of the weights, by the model's own names
    computed_in: torch.dtype  # of its products


def checked_rows(held_out: Mapping[str, np.ndarray]) -> Tensor:
    """Return the rows that a saved model is compared on, (rows, length): one of each set in turn, BATCH_TOKENS in all.

    A row that is longer than that is cut.
    """
    longest = max(len(rows) for rows in held_out.values())
    in_turn = [rows[number] for number in range(longest) for rows in held_out.values() if number < len(rows)]
    length = min(len(in_turn[0]), BATCH_TOKENS)
    chosen = in_turn[: max(1, BATCH_TOKENS // length)]
    return torch.from_numpy(np.stack([row[:length] for row in chosen]).astype(np.int64))


def norms(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the norm of each weight, by which `check_saved` names those that are not what was saved."""
    return {
        name: float(vector_norm(tensor, dtype=torch.float32))
        for name, tensor in weights.items()
        if tensor.is_floating_point()
    }


def check_saved(folder: Path, trained: Trained, device: torch.device) -> None:
    """Load a saved model as `AutoModelForCausalLM.from_pretrained(folder)` does, and compare its loss with the trained.

    It takes no more host memory than the weights did when they were written, if that copy is freed first.

    Raises ModelError if weights are missing or have other values, or if the losses differ by more than 1e-3 nats per
    token, or than the error of the shortest dtype that one of them is computed in.
    """
    model, report = load_with_report(str(folder))
    wrong = [each.removeprefix("model.path: ") for each in compare_weights("its folder", model, report).problems]
    if differing := _differing(trained.norms, model):
        wrong.append(f"{shown(differing)} are not what was saved")
    nats, again = _compared(model, trained, device)
    expected, found = float(nats.mean()), float(again.mean())
    allowed, dtype = _allowed(trained.computed_in, model.dtype, expected)
    if wrong or not abs(found - expected) <= allowed:  # of a loss that is not finite, too
        raise ModelError(
            f"loaded again, the saved model has a loss of {found:.4f} nats per token on {nats.numel()} held-out "
            f"tokens, and in training {expected:.4f} (allowed in {dtype}: {allowed:.1g}); "
            f"{'; '.join(wrong) or 'its weights are what was saved'}. Nothing was written: transformers does not save "
            "this model as it loads it; start from a folder that it saved itself"
        )


def _compared(model: PreTrainedModel, trained: Trained, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return losses of the same predictions in training and of the loaded model: on the host, of a few tokens."""
    if _fits(model, device, trained.rows.shape[1]):
        try:
            return trained.nats, _nats(model, trained.rows, device)
        except torch.OutOfMemoryError:  # another process may use the device, too
            pass
    rows, nats = trained.rows[:1, :_ON_HOST_TOKENS], trained.nats[:1, : _ON_HOST_TOKENS - 1]
    return nats, _nats(model, rows, torch.device("cpu"))


def _allowed(computed_in: torch.dtype, stored: torch.dtype, loss: float) -> tuple[float, str]:
    """Return how far two losses may be apart, in nats per token, and the name of the dtype that decides."""
    shortest = max((computed_in, stored), key=lambda dtype: torch.finfo(dtype).eps)
    rounding = 0.0 if shortest == torch.float32 else 2 * torch.finfo(shortest).eps * loss
    return max(TOLERANCE, rounding), str(shortest).removeprefix("torch.")


def _differing(expected: Mapping[str, float], model: PreTrainedModel) -> list[str]:
    found = norms(model.state_dict())
    return [name for name, norm in expected.items() if not isclose(found.get(name, nan), norm, rel_tol=1e-4)]


@torch.no_grad()
def _nats(model: PreTrainedModel, rows: Tensor, device: torch.device) -> Tensor:
    """Return the loss of each prediction by the model's own logits, (rows, length − 1), one row at a time."""
    torch.nn.Module.to(model.eval(), device)
    found = []
    for row in rows.to(device):
        logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
        found.append(F.cross_entropy(logits.float(), row[1:], reduction="none"))
    return torch.stack(found).cpu()


def _fits(model: PreTrainedModel, device: torch.device, tokens: int) -> bool:
    """Return whether a loaded model, with its logits of a row, has room on a device beside what the training holds."""
    if device.type != "cuda":
        return True
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    logits = tokens * model.config.get_text_config().vocab_size * _BYTES_PER_LOGIT
    return torch.cuda.mem_get_info(device)[0] + unused >= _SPARE * weights + logits
