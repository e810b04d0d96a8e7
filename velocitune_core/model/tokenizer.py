"""Load the tokenizer of a model folder: the ids are those of its tokenizer.json, whatever a class makes of it."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from velocitune_core.model.folder import FAST_TOKENIZER, ModelError
from velocitune_core.model.tokenizer_probe import ids_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)
LOADING = Lock()  # transformers resolves names lazily and keeps global state while it loads: one thread at a time


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer; runs no code of the folder.

    transformers builds the tokenizer of some models anew from its vocabulary, by a class that config.json or
    tokenizer_config.json implies. If that one gives other ids than the folder's tokenizer.json, or cannot be built, the
    file itself is used, with a warning.

    Raises ModelError if there is none that can be loaded, or that gives the ids of its file.
    """
    file = Path(path) / FAST_TOKENIZER
    if not file.is_file():
        return _loaded(path, by_class=True)
    expected = _ids_of_file(file)
    try:
        tokenizer = _loaded(path, by_class=True)
        if _ids(tokenizer, path) == expected:
            return tokenizer
        reason = f"{type(tokenizer).__name__} of transformers gives other ids than this file"
    except ModelError as error:
        reason = str(error)
    tokenizer = _loaded(path, by_class=False)
    if _ids(tokenizer, path) != expected:
        raise ModelError(
            f"model.path: {path}: transformers gives other ids than {FAST_TOKENIZER} however it loads it; save the "
            "tokenizer again with save_pretrained, so that its files agree"
        )
    _warn_once(
        f"model.path: {file} is used as it is: {reason}. AutoTokenizer would take the class; load the tokenizer, and "
        "that of the trained model, with PreTrainedTokenizerFast.from_pretrained"
    )
    return tokenizer


def file_problems(path: str) -> list[str]:
    """Return why tokenizer.json itself is no tokenizer, as one line; empty if it is one, or is not there."""
    file = Path(path) / FAST_TOKENIZER
    try:
        if file.is_file():
            _ids_of_file(file)
    except ModelError as error:
        return [str(error)]
    return []


def _loaded(path: str, *, by_class: bool) -> PreTrainedTokenizerFast:
    """Load by the class that a folder implies, or its tokenizer.json as it is. Raises ModelError if that fails."""
    try:
        with LOADING:
            from transformers import AutoTokenizer, PreTrainedTokenizerFast

            loader: Any = AutoTokenizer if by_class else PreTrainedTokenizerFast
            options = {"use_fast": True, "trust_remote_code": False} if by_class else {}
            tokenizer: Any = loader.from_pretrained(path, local_files_only=True, **options)
    except Exception as error:  # as many kinds as there are tokenizers, of Rust's too
        raise ModelError(_cannot_load(path, error)) from None
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"model.path: {path} has no fast tokenizer, only {type(tokenizer).__name__}, written in Python; convert it "
            f"so that it has a {FAST_TOKENIZER}"
        )
    return tokenizer


def _cannot_load(path: str, error: Exception) -> str:
    folder = Path(path)
    if not (folder / FAST_TOKENIZER).is_file() and (models := sorted(each.name for each in folder.glob("*.model"))):
        return (
            f"model.path: {path} has a SentencePiece model alone ({', '.join(models)}) and no {FAST_TOKENIZER}; where "
            "sentencepiece and protobuf are installed, load it with AutoTokenizer and save it with save_pretrained"
        )
    return f"model.path: cannot load the tokenizer of {path}: {str(error).strip().partition(chr(10))[0]}"


def _ids_of_file(file: Path) -> list[int]:
    """Return the ids that tokenizer.json gives to the probe. Raises ModelError for a file that cannot be read."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # of Rust
        raise ModelError(
            f"model.path: {file} is no tokenizer: {str(error).strip().partition(chr(10))[0]}; download it again, or "
            "save the tokenizer again with save_pretrained"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _probed(tokenizer, str(file.parent))


def _ids(tokenizer: PreTrainedTokenizerFast, path: str) -> list[int]:
    copy: Any = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return _probed(copy, path)


def _probed(tokenizer: Any, path: str) -> list[int]:
    try:
        return ids_of(tokenizer)
    except ValueError as error:
        raise ModelError(
            f"model.path: the tokenizer of {path} cannot encode every text: {error}; give it an unknown token, or "
            "train it with byte fallback"
        ) from None


@lru_cache
def _warn_once(message: str) -> None:
    """Warn, once in a process: a tokenizer is loaded by every domain."""
    logger.warning("%s", message)
