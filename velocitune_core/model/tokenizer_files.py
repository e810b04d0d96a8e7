"""The files of a tokenizer, which the trained model's folder has byte for byte as the folder it started from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from velocitune_core.model.folder import FAST_TOKENIZER
from velocitune_core.model.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PATTERNS = (
    "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "*.model", "*.tiktoken", "tekken.json", "chat_template.*",
)  # fmt: skip
FOLDERS = ("additional_chat_templates",)


def write_tokenizer(tokenizer: PreTrainedTokenizerFast | str, target: Path) -> None:
    """Write a tokenizer into a folder.

    Args:
        tokenizer: one made in this process; or a model folder, whose tokenizer's files are copied. If it has no
            tokenizer.json, one is added.
    """
    if not isinstance(tokenizer, str):
        tokenizer.save_pretrained(target)
        return
    source = Path(tokenizer)
    if not (source / FAST_TOKENIZER).is_file():
        load_tokenizer(tokenizer).save_pretrained(target)
    for pattern in PATTERNS:
        for file in source.glob(pattern):
            if file.is_file():
                shutil.copyfile(file, target / file.name)
    for name in FOLDERS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
