"""Bits per byte of gold answers, Σ nats / (ln 2 · Σ bytes), given as much of their context as fits.

Bytes do not depend on the tokenizer, so models with different vocabularies can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velocitune_core.evaluation.benchmark_tasks import DownstreamError, Instance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Encoded:
    """Token ids of the end of a context, followed by those of the answer."""

    tokens: tuple[int, ...]
    answer_tokens: int  # how many of the last tokens are scored
    answer_bytes: int  # of the text of the scored tokens
    shortened: bool  # whether the answer's end did not fit


@dataclass(frozen=True)
class Score:
    """Sums over the instances of a task, and their bits per byte."""

    instances: int
    shortened: int  # instances whose answer was cut
    tokens: int
    bytes: int
    nats: float

    @property
    def bits_per_byte(self) -> float:
        """Σ nats / (ln 2 · Σ bytes)."""
        return self.nats / (math.log(2) * self.bytes)


def context_window(config: Any, limit: int) -> int:
    """Return the most tokens of an instance: the model's own context length, at most `limit`."""
    own = getattr(config, "max_position_embeddings", None)
    return min(own, limit) if own else limit


def encode(instance: Instance, tokenizer: PreTrainedTokenizerFast, window: int) -> Encoded:
    """Encode at most `window` tokens: the whole answer if it fits, preceded by the end of the context.

    Context and answer are encoded separately, after a beginning-of-text token, as ai2-olmo-eval does, so that the
    scored text does not depend on merges across their border. An answer of `window` tokens or more keeps its first
    window − 1, cut at a character's end, and counts the bytes of those alone.

    Raises DownstreamError if the tokenizer makes no token of context or answer.
    """
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    context = tokenizer(instance.context, add_special_tokens=False, verbose=False)["input_ids"]
    answer = tokenizer(instance.continuation, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    before = [*([begin] if begin is not None else []), *context]
    ids, offsets = answer["input_ids"], answer["offset_mapping"]
    kept = min(len(ids), window - 1)
    while 0 < kept < len(ids) and offsets[kept][0] < offsets[kept - 1][1]:  # inside a character of several tokens
        kept -= 1
    if not kept or not before:
        raise DownstreamError(
            f"{instance.identifier}: the tokenizer makes no token of its {'answer' if before else 'context'}; "
            "give the model's own tokenizer, one that encodes any text"
        )
    text = instance.continuation if kept == len(ids) else instance.continuation[: offsets[kept - 1][1]]
    return Encoded((*before[kept - window :], *ids[:kept]), kept, len(text.encode()), kept < len(ids))


@torch.no_grad()
def score(
    model: nn.Module, tasks: Mapping[str, Sequence[Encoded]], *, batch_tokens: int, device: torch.device
) -> dict[str, Score]:
    """Score every instance; return the sums by task, which do not depend on order or batch size.

    Args:
        tasks: encoded instances by task; batches span tasks and hold instances of similar length.
        batch_tokens: of a forward pass, padding included; a longer instance is a batch of its own.

    Raises DownstreamError for a task without instances, or a sum that is not finite.
    """
    rows = [(task, each) for task, found in tasks.items() for each in found]
    nats = dict.fromkeys(tasks, 0.0)
    was_training = model.training
    model.eval()
    for batch in _batches(rows, batch_tokens):
        sums = answer_nats(model, [each for _, each in batch], device)
        for (task, _), value in zip(batch, sums.tolist(), strict=True):
            nats[task] += value
    model.train(was_training)
    return {task: _summed(task, found, nats[task]) for task, found in tasks.items()}


def answer_nats(model: nn.Module, batch: Sequence[Encoded], device: torch.device) -> Tensor:
    """Return −log p(answer | context) of each instance in nats, (batch,) float64 on the CPU."""
    lengths = torch.tensor([len(each.tokens) for each in batch])
    answers = torch.tensor([each.answer_tokens for each in batch])
    # A causal model does not attend to later tokens, so padding on the right needs no mask.
    padded = nn.utils.rnn.pad_sequence([torch.tensor(each.tokens) for each in batch], batch_first=True)
    position = torch.arange(1, padded.shape[1])  # of the predicted token
    scored = (position >= (lengths - answers)[:, None]) & (position < lengths[:, None])  # (batch, length − 1)
    logits = model(input_ids=padded.to(device), use_cache=False).logits[:, :-1][scored.to(device)]
    targets = padded[:, 1:][scored].to(device)
    nats = F.cross_entropy(logits.float(), targets, reduction="none").double().cpu()
    return torch.zeros(len(batch), dtype=torch.float64).index_add_(0, scored.nonzero()[:, 0], nats)


def _batches(rows: list[tuple[str, Encoded]], batch_tokens: int) -> Iterator[list[tuple[str, Encoded]]]:
    """Yield batches, longest instances first, so that too little memory fails at once."""
    rows = sorted(rows, key=lambda row: -len(row[1].tokens))
    start = 0
    while start < len(rows):
        count = max(1, batch_tokens // len(rows[start][1].tokens))
        yield rows[start : start + count]
        start += count


def _summed(task: str, instances: Sequence[Encoded], nats: float) -> Score:
    if not instances:
        raise DownstreamError(f"{task}: no instances to score; raise downstream.instances or remove the task")
    if not math.isfinite(nats):
        raise DownstreamError(f"{task}: the model gives {nats} nats; its parameters are corrupt: train it again")
    return Score(
        instances=len(instances),
        shortened=sum(each.shortened for each in instances),
        tokens=sum(each.answer_tokens for each in instances),
        bytes=sum(each.answer_bytes for each in instances),
        nats=nats,
    )
