"""Two-layer models of many architectures, as folders."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny import LENGTH, VOCABULARY
from transformers import AutoModelForCausalLM, PretrainedConfig

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": LENGTH,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.2,  # random weights of the usual size predict nearly evenly, whatever the architecture
}
_GROUPED = {"num_key_value_heads": 1}
_GEMMA = {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8}
_GPT2 = {"n_positions": LENGTH, "n_embd": 16, "n_layer": 2, "n_head": 2}
_EXPERTS = {**_GROUPED, "num_experts_per_tok": 2}

ARCHITECTURES: Mapping[str, tuple[str, dict[str, Any]]] = {  # name: class of its configuration, what it says
    "llama": ("LlamaConfig", _GROUPED),
    "gpt2": ("GPT2Config", _GPT2),
    "opt": ("OPTConfig", {"ffn_dim": 32, "word_embed_proj_dim": 8, "init_std": 0.2}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", {**_GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2Config", {**_GEMMA, "final_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3TextConfig", _GEMMA),
    "mistral": ("MistralConfig", {**_GROUPED, "sliding_window": 6}),
    "phi": ("PhiConfig", {}),
    "olmo2": ("Olmo2Config", _GROUPED),
    "cohere": ("CohereConfig", {**_GROUPED, "logit_scale": 0.5}),
    "granite": ("GraniteConfig", {**_GROUPED, "logits_scaling": 3.0}),
    "mixtral": ("MixtralConfig", {**_EXPERTS, "num_local_experts": 4}),
}


def shape_of(name: str, **changes: Any) -> PretrainedConfig:
    """The configuration of a two-layer model."""
    kind, own = ARCHITECTURES[name]
    return getattr(transformers, kind)(**(_SHAPE | own | changes))


def write_architecture(name: str, folder: Path, tokenizer: Path, dtype: torch.dtype = torch.float32) -> Path:
    """`folder`/<name>, with the tokenizer of another model folder."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(shape_of(name), dtype=dtype)
    model.save_pretrained(folder / name)
    for file in tokenizer.glob("tokenizer*"):
        shutil.copy(file, folder / name)
    return folder / name


def bert_shape() -> dict[str, Any]:
    """Of a model of another kind: what its configuration says, but for `is_decoder`."""
    wide = {"initializer_range": 0.4, "pad_token_id": 0}
    return {**{name: _SHAPE[name] for name in list(_SHAPE)[:6]}, "num_hidden_layers": 1, **wide}
