"""The model and its optimizer: gradients of one batch, one step, held-out losses, whole state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor

from velocitune_core.checkpoint.state import RNG, train_state, whole_weights
from velocitune_core.checkpoint.store import Checkpoint, read_tensors
from velocitune_core.config import ConfigError, Execution, Training
from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.evaluation.held_out import evaluate
from velocitune_core.model.folder import (
    ModelError,
    count_parameters,
    load_model,
    load_tokenizer,
    parameter_groups,
    save_model,
    transformer_layers,
    turn_dropout_off,
)
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.parallel.ranks import Ranks, shard, to_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel


BFLOAT16_UNITS = {"amx_bf16", "avx512_bf16"}  # of processors: matrix products take half the time of float32 or less


@dataclass(frozen=True)
class BatchLoss:
    """What a batch said, over all processes; (K,) arrays are per domain, NaN where the batch has none of it."""

    loss: float  # nats per token
    gradient_norm: float  # before clipping
    domain_losses: NDArray[np.float64]  # (K,) nats per token
    domain_excess: NDArray[np.float64] | None  # (K,) mean over tokens of max(ℓ − ℓ_reference, 0); None: no reference

    @property
    def finite(self) -> bool:
        return finite(self.loss, self.gradient_norm)


class Learner:
    """A transformers model under AdamW, sharded over the processes of the run.

    Args:
        reference: folder of a frozen model whose token losses are subtracted from this one's.

    Raises ConfigError if the batch cannot be shared evenly, ModelError if a folder cannot be loaded or the reference
    has another tokenizer.
    """

    def __init__(
        self, path: str, settings: Training, execution: Execution, ranks: Ranks, reference: str | None = None
    ) -> None:
        batch, micro = settings.batch_sequences, execution.micro_batch_sequences or 1
        if batch % (micro * ranks.world_size):  # sharded weights need as many passes in every process, or they hang
            raise ConfigError(
                f"training.batch_sequences {batch} is not a multiple of {ranks.world_size} processes times "
                f"execution.micro_batch_sequences {micro}"
            )
        torch.manual_seed(settings.seed)
        self._path, self._settings, self._execution, self._ranks = path, settings, execution, ranks
        self._model = load_model(path).train()  # activation checkpointing acts in this mode only
        dropped = turn_dropout_off(self._model)
        self.notes = [f"dropout of the model ({', '.join(dropped)}) is off while it is trained"] if dropped else []
        self.parameters = count_parameters(self._model)
        if execution.activation_checkpointing:
            self._model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        self._loss = self._placed(self._model)
        self._reference = None if reference is None else self._load_reference(reference)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._model, settings.optimizer.weight_decay),
            lr=settings.optimizer.learning_rate,
            betas=settings.optimizer.betas,
            fused=True,
        )

    def gradients(self, sequences: Tensor, domains: NDArray[np.int64], domain_count: int) -> BatchLoss:
        """Backpropagate the mean loss of the whole batch, micro-batch by micro-batch.

        Args:
            sequences: (batch / processes, length) of token ids: this process's share of the batch.
            domains: (batch / processes,) which domain each of them is from, in range(domain_count).
        """
        micro = self._execution.micro_batch_sequences or len(sequences)
        per_sequence = sequences.shape[1] - 1
        predictions = self._settings.batch_sequences * per_sequence
        device = self._ranks.device
        owners = to_device(torch.from_numpy(domains), device)
        # Sequences, nats, nats in excess of the reference: summed where they arise, so that nothing waits for the GPU.
        sums = torch.zeros(3, domain_count, dtype=torch.float64, device=device)
        sums[0].index_add_(0, owners, torch.ones(len(owners), dtype=torch.float64, device=device))
        for part, owner in zip(to_device(sequences, device).split(micro), owners.split(micro), strict=True):
            tokens = self._loss(part)
            nats = tokens.sum(dim=1)
            # Sharding averages gradients over processes, where the sum is wanted.
            (nats.sum() * (self._ranks.world_size / predictions)).backward()
            sums[1].index_add_(0, owner, nats.detach().double())
            if self._reference is not None:
                sums[2].index_add_(0, owner, self._excess(part, tokens.detach()).double())
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.optimizer.gradient_clip)
        whole_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # One transfer brings all figures of the step to the host: the only time that a step waits for the GPU.
        figures = torch.cat([self._ranks.all_reduce(sums).flatten(), whole_norm.double()[None]]).cpu().numpy()
        count, nats, excess = figures[:-1].reshape(3, domain_count)
        seen = np.where(count > 0, count * per_sequence, np.nan)
        return BatchLoss(
            loss=float(nats.sum()) / predictions,
            gradient_norm=float(figures[-1]),
            domain_losses=nats / seen,
            domain_excess=None if self._reference is None else excess / seen,
        )

    @torch.no_grad()
    def _excess(self, sequences: Tensor, nats: Tensor) -> Tensor:
        """Σ over tokens of max(ℓ − ℓ_reference, 0) of each sequence, (batch,); `nats` is (batch, length − 1)."""
        assert self._reference is not None
        return (nats - self._reference(sequences)).clamp(min=0).sum(dim=1)

    def apply(self, learning_rate: float) -> None:
        """One optimizer step with the gradients at hand."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self.forget_gradients()

    def forget_gradients(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def evaluate(self, held_out: Mapping[str, np.ndarray], batch_sequences: int) -> dict[str, float]:
        """Held-out loss per domain, nats per token."""
        return evaluate(self._loss, held_out, batch_sequences=batch_sequences, ranks=self._ranks)

    def state(self) -> dict[str, Tensor]:
        """Weights, optimizer moments and generator: this process's share of the live tensors, by name."""
        return train_state(self._model, self._optimizer)

    def load_state(self, checkpoint: Checkpoint) -> None:
        """Take up what was saved, by however many processes."""
        state = self.state()
        read_tensors(checkpoint, state, self._ranks)
        torch.set_rng_state(state[RNG])

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as a folder that from_pretrained loads; every process must call."""
        weights = whole_weights(self._model)
        if self._ranks.is_main:
            save_model(self._model, load_tokenizer(self._path), folder, weights)
        self._ranks.barrier()

    def _load_reference(self, path: str) -> NextTokenLoss:
        ours, theirs = (tokenizer_digest(load_tokenizer(folder)) for folder in (self._path, path))
        if ours != theirs:
            raise ModelError(
                f"{path}: a reference model with another tokenizer than {self._path}, so their losses cannot be "
                "compared; train the reference from the same base model"
            )
        return self._placed(load_model(path).requires_grad_(False)).eval()

    def _placed(self, model: PreTrainedModel) -> NextTokenLoss:
        """A model's loss, on this process's device, compiled and sharded as configured."""
        if self._ranks.world_size == 1:  # else sharding takes layer by layer there, and never holds them all
            torch.nn.Module.to(model, self._ranks.device)
        loss = NextTokenLoss(model)
        if compiles(self._execution.compile, self._ranks.device):
            for layer in transformer_layers(model):  # one by one: they are alike, so one compilation serves all
                layer.compile()
        bfloat16 = uses_bfloat16(self._settings.precision, self._ranks.device)
        shard(loss, transformer_layers(model), self._ranks, torch.bfloat16 if bfloat16 else None)
        return loss


def finite(*values: float) -> bool:
    return all(map(math.isfinite, values))


def compiles(setting: str, device: torch.device) -> bool:
    """Whether layers are compiled: on request, or on a GPU, where it pays within minutes."""
    return setting == "always" or (setting == "auto" and device.type == "cuda")


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16: on request, or where the hardware has units for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return not BFLOAT16_UNITS.isdisjoint(_cpu_flags())


@cache
def _cpu_flags() -> set[str]:
    """Feature flags of the processor; empty where the system does not tell."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return set()
    flags = next((line for line in path.read_text().splitlines() if line.startswith("flags")), "")
    return set(flags.split())
