"""Checks of a transformers model folder that need neither torch nor transformers."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from velocitune_core.files import file_sha256
from velocitune_core.model.headers import Stored, lfs_pointers, links_to_nothing, shown, stored_weights

FAST_TOKENIZER = "tokenizer.json"
# Files that a tokenizer can be loaded from; the last are made into a fast one
_TOKENIZERS = ((FAST_TOKENIZER,), ("vocab.json", "merges.txt"), ("vocab.txt",), ("tekken.json",))
_TOKENIZER_PATTERNS = ("*.model", "*.tiktoken")
_OF_A_TOKENIZER = ("*token*.json", "vocab*", "merges.txt", *_TOKENIZER_PATTERNS, "*.jinja")


class ModelError(ValueError):
    """A model folder that cannot be used."""


def check_model_folder(path: str) -> list[str]:
    """Return the reasons why `path` is not a transformers folder with safetensors and a tokenizer; empty if it is."""
    return look_into_folder(path).problems


def look_into_folder(path: str) -> Stored:
    """Return the weights that a folder stores, and the reasons why it is not a model that can be loaded.

    Reads config.json and the headers of the weights: of a model of any size, that takes milliseconds.
    """
    folder = Path(path)
    if not folder.is_dir():
        hint = ""
        if path.count("/") == 1 and not path.startswith((".", "/")):
            hint = "; if it is a hub id, run `python -m tasks.workspace.hub` to fetch it"
        return Stored(problems=[f"model.path: {path!r} is not a folder{hint}"])
    if pointers := lfs_pointers(path):  # whatever else is wrong follows from it
        what = "is a git-LFS pointer" if len(pointers) == 1 else "are git-LFS pointers"
        return Stored(
            problems=[f"model.path: {path}: {shown(pointers)} {what} in place of the file; run `git lfs pull` there"]
        )
    if gone := links_to_nothing(path):  # so does this; DVC could not record the folder either
        return Stored(problems=gone)
    problems = _config_problems(folder)
    stored = stored_weights(path)
    problems += stored.problems
    if not has_tokenizer(path):
        problems.append(f"model.path: {path} has no tokenizer; save it beside the model with save_pretrained")
    return Stored(stored.tensors, problems)


def has_tokenizer(path: str) -> bool:
    """Return whether a folder has the files of a tokenizer, a fast one or one that can be made into it."""
    folder = Path(path)
    complete = any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS)
    return complete or any(any(folder.glob(pattern)) for pattern in _TOKENIZER_PATTERNS)


def _config_problems(folder: Path) -> list[str]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [f"model.path: {folder} has no config.json; give a folder made by save_pretrained"]
    except ValueError as error:
        return [f"model.path: {file} is not JSON: {error}"]
    except OSError as error:
        return [f"model.path: {file} cannot be read: {error.strerror}"]
    if not isinstance(config, dict) or "model_type" not in config:
        return [f"model.path: {file} has no model_type; is it a transformers model?"]
    return []


def tokenizer_files_digest(folder: Path) -> str:
    """Return one SHA-256 over the files that a tokenizer may be loaded from, without loading it."""
    files = {file for pattern in _OF_A_TOKENIZER for file in folder.glob(pattern)}
    return sha256("".join(f"{file.name} {file_sha256(file)}\n" for file in sorted(files)).encode()).hexdigest()
