"""A model of a few thousand parameters, its tokenizer, random packed domains, and the jobs that train it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from velocitune_core.files import file_sha256

VOCABULARY, LENGTH = 64, 16
SEQUENCES = {"code": 60, "general": 24}


def llama() -> LlamaForCausalLM:
    """Vocabulary 64, width 16, two layers, embeddings tied."""
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(shape)


def rows(name: str, sequences: int) -> np.ndarray:
    """Token ids (sequences, length), each domain with a rule of its own to learn: steps of 1, or of 3."""
    random = np.random.default_rng(len(name))
    starts = random.integers(VOCABULARY, size=(sequences, 1))
    stride = 1 if name == "code" else 3
    return ((starts + stride * np.arange(LENGTH)) % VOCABULARY).astype(np.uint16)


def write_inputs(folder: Path) -> None:
    """`model/` as a transformers folder, and `<domain>/{train,held_out}.npy`."""
    vocabulary = {"<|endoftext|>": 0} | {f"word{number}": number for number in range(1, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    llama().save_pretrained(folder / "model")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder / "model")
    for name, sequences in SEQUENCES.items():
        (folder / name).mkdir()
        np.save(folder / name / "train.npy", rows(name, sequences))
        np.save(folder / name / "held_out.npy", rows(name + " held out", 9))


def job(inputs: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """45 steps under Velocitune, evaluated every five, saved every fifteen; `a__b=1` sets job["a"]["b"]."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "output": str(output),
        "model": str(inputs / "model"),
        "domains": {
            name: {
                "train": str(inputs / name / "train.npy"),
                "held_out": str(inputs / name / "held_out.npy"),
                "train_sha256": _sha256(inputs / name / "train.npy"),
                "held_out_sha256": _sha256(inputs / name / "held_out.npy"),
            }
            for name in SEQUENCES
        },
        "initial_domain_weights": {"code": 0.7, "general": 0.3},
        "total_steps": 45,
        "training": {
            "batch_sequences": 6,
            "optimizer": {"learning_rate": 1e-2},
            "precision": "float32",
        },
        "execution": {
            "micro_batch_sequences": 3,
            "evaluation_micro_batch_sequences": 8,
            "checkpoint_every_steps": 15,
            "checkpoints_kept": 2,
            "log_every_steps": 1,
        },
        "evaluation": {"every_steps": 5},
        "strategy": {
            "name": "velocitune",
            "options": {
                "initial_loss": {"code": 4.2, "general": 4.2},
                "target_loss": {"code": 2.0, "general": 3.0},
            },
        },
        "threads": 1,
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = tree
        for parent in parents:
            section = section[parent]
        section[last] = value
    return tree


def _sha256(path: Path) -> str:
    """ "0" for a file that only a test of something else names."""
    return file_sha256(path) if path.exists() else "0"


def write_job(tree: Mapping[str, Any]) -> Path:
    """Beside the output folder, under its name."""
    path = Path(tree["output"]).with_suffix(".json")
    path.write_text(json.dumps(tree))
    return path
