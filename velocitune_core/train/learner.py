"""The model in training: gradients of one batch, one optimizer step, held-out losses, the tensors of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor

from velocitune_core.checkpoint.state import RNG, train_state
from velocitune_core.checkpoint.store import Checkpoint, read_tensors
from velocitune_core.config import ConfigError, Execution, SaveDtype, Training
from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.evaluation.held_out import evaluate
from velocitune_core.files import replacing
from velocitune_core.model.attention import differentiate_in_float32
from velocitune_core.model.folder import ModelError
from velocitune_core.model.io import stored_dtype, write_model
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.model.modules import count_parameters, transformer_layers, turn_dropout_off
from velocitune_core.model.saved import Trained, check_saved, norms
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.model.trainable import check_trainable, training_notes
from velocitune_core.parallel.agreement import together
from velocitune_core.parallel.fsdp import gathered, reshard
from velocitune_core.parallel.gathering import Gathering, device_bytes, gathers_per_step
from velocitune_core.parallel.ranks import Ranks, to_device
from velocitune_core.train.compilation import Compilation, Place, Work, compilation, compiled_loss, uncompiled
from velocitune_core.train.optimizer import build_optimizer, initialise_state
from velocitune_core.train.placement import Prepare, loaded_loss
from velocitune_core.train.precision import uses_bfloat16

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class BatchLoss:
    """Loss statistics of one global batch; (K,) arrays are by domain, NaN for a domain with no sequence in it."""

    loss: float  # nats per token
    gradient_norm: float  # before clipping
    domain_losses: NDArray[np.float64]  # (K,) nats per token
    domain_excess: NDArray[np.float64] | None  # (K,) mean over tokens of max(ℓ − ℓ_reference, 0); None: no reference

    @property
    def finite(self) -> bool:
        """Whether the gradients can be applied."""
        return finite(self.loss, self.gradient_norm)


class Learner:
    """A transformers model under AdamW, sharded over the ranks of the run.

    Args:
        path: transformers folder to start from.
        reference: folder of a frozen model whose token losses are subtracted from this one's.
        document_start: id of the token that documents begin with, if attention is to stay inside a document.
        work: how many steps the run has, from which `execution.compile: auto` decides on a CPU.

    `model_notes` holds a line for each change to the model that the user should see, `parameters` their count, and
    `compilation` what is compiled and why.

    Raises ConfigError if the batch cannot be split evenly, ModelError if a folder cannot be loaded, the reference has
    another tokenizer, or attention of the model cannot be kept inside a document.
    """

    def __init__(
        self,
        path: str,
        settings: Training,
        execution: Execution,
        ranks: Ranks,
        reference: str | None = None,
        document_start: int | None = None,
        work: Work | None = None,
    ) -> None:
        batch, micro = settings.batch_sequences, execution.micro_batch_sequences or 1
        if batch % (micro * ranks.world_size):  # ranks must run the same number of passes: each gathers the parameters
            raise ConfigError(
                f"training.batch_sequences {batch} is not a multiple of {ranks.world_size} processes times "
                f"execution.micro_batch_sequences {micro}"
            )
        torch.manual_seed(settings.seed)
        self._path, self._settings, self._execution, self._ranks = path, settings, execution, ranks
        self._document_start = document_start
        self._bfloat16 = uses_bfloat16(settings.precision, ranks.device)
        self._work = work
        self.model_notes: list[str] = []
        if problems := check_trainable(path):
            raise ModelError("\n".join(problems))
        self._loss = self._loaded(path, self._prepared)
        self._model = self._loss.model
        # One rank looks, and it alone saves: others may find other files, or none.
        found = together((lambda: stored_dtype(path)) if ranks.is_main else None, ranks)
        self._stored_dtype: SaveDtype = found or "float32"
        self.parameters = count_parameters(self._model)
        self.compilation = self._compilation(self._model)
        self._training_loss: Callable[..., Tensor] = self._loss
        if self.compilation.whole_loss:  # which makes the mask of every batch: a hint would compile it twice
            self._training_loss = compiled_loss(self._loss)
        self._gathering = Gathering(self._loss, self._gathers_per_step())
        self._reference = None if reference is None else self._load_reference(reference)
        self._optimizer = build_optimizer(self._model, settings.optimizer)

    def gradients(self, sequences: Tensor, domains: NDArray[np.int64], domain_count: int) -> BatchLoss:
        """Backpropagate the mean loss of the global batch, one micro-batch at a time, and clip the gradients.

        Args:
            sequences: (batch / world size, length) of token ids: this rank's part of the batch.
            domains: (batch / world size,) domain of each sequence, in range(domain_count).
        """
        initialise_state(self._optimizer)
        micro = self._execution.micro_batch_sequences or len(sequences)
        per_sequence = sequences.shape[1] - 1
        predictions = self._settings.batch_sequences * per_sequence
        device = self._ranks.device
        owners = to_device(torch.from_numpy(domains), device)
        # Rows: sequences, nats, nats in excess of the reference; summed on the device, so that the host does not wait.
        sums = torch.zeros(3, domain_count, dtype=torch.float64, device=device)
        sums[0].index_add_(0, owners, torch.ones(len(owners), dtype=torch.float64, device=device))
        parts = to_device(sequences, device).split(micro)
        packed = [self._loss.packed(part) for part in sequences.split(micro)]
        for number, (part, owner) in enumerate(zip(parts, owners.split(micro), strict=True)):
            self._gathering.before_micro_batch(last=number == len(parts) - 1)
            tokens = self._training_loss(part, **({} if self.compilation.whole_loss else {"packed": packed[number]}))
            nats = tokens.sum(dim=1)
            # FSDP averages gradients over the ranks, and the sum is wanted.
            (nats.sum() * (self._ranks.world_size / predictions)).backward()
            sums[1].index_add_(0, owner, nats.detach().double())
            if self._reference is not None:
                sums[2].index_add_(0, owner, self._excess(part, packed[number], tokens.detach()).double())
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.optimizer.gradient_clip)
        full_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # One transfer brings all figures of the step to the host: the only time that a step waits for the GPU.
        figures = torch.cat([self._ranks.all_reduce(sums).flatten(), full_norm.double()[None]]).cpu().numpy()
        count, nats, excess = figures[:-1].reshape(3, domain_count)
        seen = np.where(count > 0, count * per_sequence, np.nan)
        return BatchLoss(
            loss=float(nats.sum()) / predictions,
            gradient_norm=float(figures[-1]),
            domain_losses=nats / seen,
            domain_excess=None if self._reference is None else excess / seen,
        )

    @torch.no_grad()
    def _excess(self, sequences: Tensor, packed: bool, nats: Tensor) -> Tensor:
        """Return Σ over tokens of max(ℓ − ℓ_reference, 0) of each sequence, (batch,); `nats` is (batch, length − 1)."""
        assert self._reference is not None
        return (nats - self._reference(sequences, packed=packed)).clamp(min=0).sum(dim=1)

    def apply(self, learning_rate: float) -> None:
        """Take one optimizer step with the gradients computed last, and discard them."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self.discard_gradients()

    def discard_gradients(self) -> None:
        """Free the gradients without a step."""
        self._optimizer.zero_grad(set_to_none=True)

    def evaluate(self, held_out: Mapping[str, np.ndarray], batch_sequences: int) -> dict[str, float]:
        """Return the held-out loss of each domain in nats per token; every rank must call."""
        self._gathering.before_evaluation(self._ranks)
        with uncompiled(self._ranks.device):
            losses = evaluate(self._loss, held_out, batch_sequences=batch_sequences, ranks=self._ranks)
        reshard(self._loss)
        return losses

    def state(self) -> dict[str, Tensor]:
        """Return this rank's shards of parameters and optimizer state, live, and the generator's state, by name."""
        initialise_state(self._optimizer)
        return train_state(self._model, self._optimizer)

    def load_state(self, checkpoint: Checkpoint) -> None:
        """Restore what `state` returned when the checkpoint was saved, by any number of ranks."""
        state = self.state()
        read_tensors(checkpoint, state, self._ranks)
        torch.set_rng_state(state[RNG])

    def save(self, folder: Path, dtype: SaveDtype = "auto", rows: Tensor | None = None) -> list[str]:
        """Write the model and its tokenizer as a folder that from_pretrained loads; every rank must call.

        The others wait on the host, with its long timeout, while no collective of the device is open.

        Args:
            dtype: of the weights in the folder; auto: that of the weights that were loaded.
            rows: (rows, length) of token ids on which the saved model, loaded again by the main rank, must have the
                loss that this one has; None: it is not loaded again.

        Returns what to warn of. Raises PhaseError on all ranks if the folder cannot be written, or holds another model;
        then there is no folder.
        """
        warnings = []
        wanted = self._stored_dtype if dtype == "auto" else dtype
        nats = None if rows is None else self._nats(rows)
        weights = self._model.state_dict(keep_vars=True)  # a tied one is one tensor under two names
        whole = gathered(weights, self._ranks, getattr(torch, wanted))
        parameters = [whole[name] for name, _ in self._model.named_parameters() if name in whole]
        if self._ranks.any(wanted == "float16" and not all(each.isfinite().all() for each in parameters)):
            warnings = ["model.save_dtype: weights are too large for float16, so the model is saved in float32"]
            whole = gathered(weights, self._ranks)
        del parameters

        def write() -> None:
            with replacing(folder) as temporary:
                write_model(self._model, self._path, temporary, whole)
                if rows is not None and nats is not None:
                    trained = Trained(rows, nats, norms(whole), torch.bfloat16 if self._bfloat16 else torch.float32)
                    whole.clear()  # before as much is loaded again
                    check_saved(temporary, trained, self._ranks.device)

        together(write if self._ranks.is_main else None, self._ranks)
        return warnings

    @torch.no_grad()
    def _nats(self, rows: Tensor) -> Tensor:
        """Return the loss of each prediction without a document mask, (rows, length − 1); every rank must call."""
        start, training = self._loss.document_start, self._loss.training
        self._gathering.before_evaluation(self._ranks)
        self._loss.document_start = None
        self._loss.eval()
        with torch.compiler.set_stance("force_eager"):  # for rows of another number, it would be compiled twice
            nats = torch.cat([self._loss(to_device(row[None], self._ranks.device)) for row in rows])
        self._loss.train(training)
        self._loss.document_start = start
        reshard(self._loss)
        return nats.float().cpu()

    def _load_reference(self, path: str) -> NextTokenLoss:
        ours, theirs = (tokenizer_digest(load_tokenizer(folder)) for folder in (self._path, path))
        if ours != theirs:
            raise ModelError(
                f"{path}: a reference model with another tokenizer than {self._path}, so their losses cannot be "
                "compared; train the reference from the same base model"
            )
        return self._loaded(path, lambda model: model.requires_grad_(False)).eval()

    def _prepared(self, model: PreTrainedModel) -> PreTrainedModel:
        """Set up a model that is to be trained: its mode, dropout and activation checkpointing."""
        model.train()  # activation checkpointing acts in this mode only
        if self._bfloat16 and self._ranks.device.type == "cpu":
            differentiate_in_float32(model)
        notes = training_notes(model.config.to_dict())
        if dropped := turn_dropout_off(model):
            notes.append(f"dropout of the model ({', '.join(dropped)}) is off while it is trained")
        self.model_notes += [f"{self._path}: {note}" for note in notes]
        if self._execution.activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        return model

    def _loaded(self, path: str, prepare: Prepare) -> NextTokenLoss:
        return loaded_loss(
            path,
            self._settings.precision,
            self._ranks,
            prepare,
            compiled=lambda model: self._compilation(model).layers,
            document_start=self._document_start,
        )

    def _compilation(self, model: PreTrainedModel) -> Compilation:
        embeddings: Any = model.get_input_embeddings()
        width, layers = embeddings.weight.shape[-1], len(transformer_layers(model))
        place = Place(self._ranks.device, self._ranks.world_size, self._bfloat16)
        return compilation(self._execution.compile, place, width, layers, self._work)

    def _gathers_per_step(self) -> bool:
        """Return whether parameters are gathered once a step, the same on every rank."""
        if self._execution.gather != "auto":
            return self._execution.gather == "step"
        if self._ranks.world_size == 1:  # a single rank has no traffic to save
            return False
        element = (torch.bfloat16 if self._bfloat16 else torch.float32).itemsize
        fits = gathers_per_step(self.parameters, element, device_bytes(self._ranks))
        return not self._ranks.any(not fits)


def finite(*values: float) -> bool:
    """Return whether no value is NaN or infinite."""
    return all(map(math.isfinite, values))
