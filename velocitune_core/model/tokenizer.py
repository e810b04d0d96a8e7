"""Load the tokenizer of a model folder."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from velocitune_core.model.folder import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LOADING = Lock()  # transformers resolves names lazily and keeps global state while it loads: one thread at a time


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer; runs no code of the folder. Raises ModelError if there is none that can be loaded."""
    try:
        with LOADING:
            from transformers import AutoTokenizer

            tokenizer: Any = AutoTokenizer.from_pretrained(
                path, use_fast=True, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # as many kinds as there are tokenizers, of Rust's too
        first = str(error).strip().partition("\n")[0]
        raise ModelError(f"model.path: cannot load the tokenizer of {path}: {first}") from None
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"model.path: {path} has no fast tokenizer, only {type(tokenizer).__name__}, written in Python; convert it "
            "so that it has a tokenizer.json"
        )
    return tokenizer
