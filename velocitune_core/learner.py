"""The model and its optimizer: gradients of one batch, one step, held-out losses, whole state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from velocitune_core.config import ConfigError, Training
from velocitune_core.evaluation import evaluate, sequence_nats
from velocitune_core.model import count_parameters, load_model, load_tokenizer, parameter_groups, save_model
from velocitune_core.processes import Processes, shard
from velocitune_core.train_state import full_state, load_full_state


class Learner:
    """A transformers model under AdamW, sharded over the processes of the run.

    Raises ConfigError if the batch cannot be shared evenly, ModelError if the folder cannot be loaded.
    """

    def __init__(self, path: str, settings: Training, processes: Processes) -> None:
        batch, micro = settings.batch_sequences, settings.micro_batch_sequences or 1
        if batch % (micro * processes.count):  # sharded weights need as many passes in every process, or they hang
            raise ConfigError(
                f"training.batch_sequences {batch} is not a multiple of {processes.count} processes times "
                f"micro_batch_sequences {micro}"
            )
        torch.manual_seed(settings.seed)
        self._path, self._settings, self._processes = path, settings, processes
        self._model = load_model(path)
        self.parameters = count_parameters(self._model)
        torch.nn.Module.to(self._model, processes.device)
        shard(self._model, processes)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._model, settings.optimizer.weight_decay),
            lr=settings.optimizer.learning_rate,
            betas=settings.optimizer.betas,
            fused=True,
        )

    def gradients(self, sequences: Tensor) -> tuple[float, float]:
        """Backpropagate the mean loss of the whole batch, micro-batch by micro-batch.

        Args:
            sequences: (batch / processes, length) of token ids: this process's share of the batch.

        Returns the batch's loss in nats per token over all processes, and the gradient's norm before clipping.
        """
        micro = self._settings.micro_batch_sequences or len(sequences)
        predictions = self._settings.batch_sequences * (sequences.shape[1] - 1)
        total = torch.zeros((), dtype=torch.float64)
        for part in sequences.to(self._processes.device).split(micro):
            with self._autocast():
                nats = sequence_nats(self._model, part).sum()
            # Sharding averages gradients over processes, where the sum is wanted.
            (nats * (self._processes.count / predictions)).backward()
            total += nats.detach().double().cpu()
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.optimizer.gradient_clip)
        return float(self._processes.sum(total)) / predictions, float(norm)

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
        return evaluate(
            self._model,
            held_out,
            batch_sequences=batch_sequences,
            processes=self._processes,
            autocast=self._autocast(),
        )

    def state(self) -> dict[str, Tensor]:
        """Weights, optimizer moments and generator, whole, in the first process; every process must call."""
        return full_state(self._model, self._optimizer)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        load_full_state(self._model, self._optimizer, tensors)

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as a folder that from_pretrained loads; every process must call."""
        weights = full_state(self._model)
        if self._processes.first:
            save_model(self._model, load_tokenizer(self._path), folder, weights)
        self._processes.wait()

    def _autocast(self) -> AbstractContextManager[object]:
        if not uses_bfloat16(self._settings.precision, self._processes.device):
            return nullcontext()
        return torch.autocast(self._processes.device.type, dtype=torch.bfloat16)


def finite(*values: float) -> bool:
    return all(map(math.isfinite, values))


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16: on request, or where the hardware has units for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return "amx_bf16" in _cpu_flags()


def _cpu_flags() -> set[str]:
    """Feature flags of the processor; empty where the system does not tell."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return set()
    flags = next((line for line in path.read_text().splitlines() if line.startswith("flags")), "")
    return set(flags.split())
