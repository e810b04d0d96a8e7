"""A small model of an architecture, to try in a moment what a folder's own model would show in minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from velocitune_core.model.fits_data import POSITION_LIMITS
from velocitune_core.model.tokenizer import LOADING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_SIZES = {
    "vocab_size": 64,
    "intermediate_size": 32,
    "moe_intermediate_size": 32,
    "num_key_value_heads": 1,
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "ffn_dim": 32,
    "word_embed_proj_dim": 32,
}
_HEADS = {"codegen": 4}  # of others 2; its attention is always divided into four parts
_IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
_SPREAD = {"initializer_range": 0.4, "init_std": 0.4}  # wide, so that predictions depend on what is attended to


def miniature(path: str, most_positions: int | None = None) -> PreTrainedModel | None:
    """Return a model with the architecture of a folder, but one layer of each kind, small and with random weights.

    It has the folder's kinds of attention, positions and norms, and no more positions than `most_positions`. None if
    transformers cannot build it so small. Leaves torch's global generator as it was.
    """
    try:
        with LOADING, torch.random.fork_rng(devices=[]):
            from transformers import AutoConfig, AutoModelForCausalLM

            config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
            _shrink(config.get_text_config())
            if most_positions is not None:
                _limit_positions(config.get_text_config(), most_positions)
            torch.manual_seed(0)
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False).eval()
    except Exception:  # of any architecture; what it was wanted for is tried on the model itself when that is loaded
        return None


def _limit_positions(config: PreTrainedConfig, most: int) -> None:
    for name in POSITION_LIMITS:
        if isinstance(present := getattr(config, name, None), int):
            setattr(config, name, min(present, most))


def _shrink(config: PreTrainedConfig) -> None:
    """Change sizes in place, whatever a configuration calls them; a head keeps its size, as its positions do."""
    present: Any = config
    kinds = list(dict.fromkeys(getattr(present, "layer_types", None) or []))
    sizes = _SIZES | {"hidden_size": 32, "num_hidden_layers": len(kinds) or 1}
    if heads := getattr(present, "num_attention_heads", None):
        sizes["num_attention_heads"] = fewer = _HEADS.get(config.model_type, 2)
        sizes["hidden_size"] = fewer * (getattr(present, "head_dim", None) or present.hidden_size // heads)
        if getattr(present, "num_key_value_heads", None) == heads:
            sizes["num_key_value_heads"] = fewer
    if kinds and "layer_types" in vars(present):  # of some it follows from the number of layers
        present.layer_types = kinds
    for name, value in (sizes | _IDS | _SPREAD).items():
        if getattr(present, name, None) is not None or name in _IDS:
            setattr(present, name, value)
