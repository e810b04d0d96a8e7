"""Bits per byte of gold answers, Σ nats / (ln 2 · Σ bytes), given as much of their context as fits.

Bytes do not depend on the tokenizer, so models with different vocabularies can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from velocitune_core.contracts import Question
from velocitune_core.data.borders import largest_text_id
from velocitune_core.evaluation.benchmark_tasks import DownstreamError
from velocitune_core.evaluation.scored_rows import ScoredRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def encode(question: Question, tokenizer: PreTrainedTokenizerFast, window: int) -> ScoredRow:
    """Encode at most `window` tokens: the whole answer if it fits, preceded by the end of the context.

    Context and answer are encoded separately, after a beginning-of-text token, as ai2-olmo-eval does, so that the
    scored text does not depend on merges across their border. An answer of `window` tokens or more keeps its first
    window − 1, cut at a character's end, and counts the bytes of those alone.

    Raises DownstreamError if the tokenizer makes no token of context or answer.
    """
    begin = _begin(tokenizer)
    context = tokenizer(question.context, add_special_tokens=False, verbose=False)["input_ids"]
    answer = tokenizer(question.continuation, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    before = [*([begin] if begin is not None else []), *context]
    ids, offsets = answer["input_ids"], answer["offset_mapping"]
    kept = min(len(ids), window - 1)
    while 0 < kept < len(ids) and offsets[kept][0] < offsets[kept - 1][1]:  # inside a character of several tokens
        kept -= 1
    if not kept or not before:
        raise DownstreamError(
            f"{question.identifier}: the tokenizer makes no token of its {'answer' if before else 'context'}; "
            "give the model's own tokenizer, one that encodes any text"
        )
    text = question.continuation if kept == len(ids) else question.continuation[: offsets[kept - 1][1]]
    return ScoredRow((*before[kept - window :], *ids[:kept]), kept, len(text.encode()), kept < len(ids))


def check_vocabulary(tokenizer: PreTrainedTokenizerFast, embedded: int, folder: str) -> None:
    """Raise DownstreamError for a tokenizer with an id of `embedded` or more: it belongs to another model.

    Special tokens that no question holds do not count, as in training: Gemma 3 has one of pictures beyond them.
    """
    begin = _begin(tokenizer)
    largest = largest_text_id(tokenizer, [] if begin is None else [begin])
    if largest >= embedded:
        raise DownstreamError(
            f"model folder: the tokenizer of {folder} has the token id {largest}, and the model embeds only {embedded} "
            "tokens; save the tokenizer that belongs to the model beside it"
        )


def _begin(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the token that a text begins with."""
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
