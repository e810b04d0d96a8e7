"""Causal language models as transformers folders: built, loaded, saved; safetensors only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from velocitune_core.config import Base
from velocitune_core.files import replacing

if TYPE_CHECKING:  # torch and transformers take seconds to import, and most callers need neither
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
_loading = Lock()  # transformers finds names when first asked and keeps state while it loads: one thread at a time


class ModelError(ValueError):
    """A model folder that cannot be used."""


def check_model_folder(path: str) -> list[str]:
    """What keeps `path` from being a transformers folder with safetensors weights and a tokenizer."""
    folder = Path(path)
    if not folder.is_dir():
        hint = ""
        if path.count("/") == 1 and not path.startswith((".", "/")):
            hint = "; if it is a hub id, run `python -m tasks.workspace.hub` to fetch it"
        return [f"model.path: {path!r} is not a folder{hint}"]
    problems = []
    try:
        if "model_type" not in json.loads((folder / "config.json").read_text(encoding="utf-8")):
            problems.append(f"model.path: {path}/config.json has no model_type; is it a transformers model?")
    except FileNotFoundError:
        problems.append(f"model.path: {path} has no config.json; give a folder made by save_pretrained")
    except ValueError as error:
        problems.append(f"model.path: {path}/config.json is not JSON: {error}")
    if not list(folder.glob("*.safetensors")):
        problems.append(f"model.path: {path} has no .safetensors weights; save the model again with save_pretrained")
    if not list(folder.glob("tokenizer*")):
        problems.append(f"model.path: {path} has no tokenizer; save it beside the model with save_pretrained")
    return problems


def weights_digest(path: Path) -> str:
    """One hash over a model folder's configuration and weights."""
    digest = sha256()
    for file in sorted([path / "config.json", *path.glob("*.safetensors")]):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with an end-of-text token; encodes any text, losslessly."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


def build_llama(base: Base, tokenizer: PreTrainedTokenizerFast, sequence_length: int, seed: int) -> PreTrainedModel:
    """A Llama with random weights of the configured shape, embeddings tied."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    end_of_text = tokenizer.eos_token_id
    assert isinstance(end_of_text, int)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=base.hidden_size,
        intermediate_size=base.intermediate_size,
        num_hidden_layers=base.layers,
        num_attention_heads=base.heads,
        num_key_value_heads=base.heads,
        max_position_embeddings=sequence_length,
        tie_word_embeddings=True,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(shape)


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """Raises ModelError if the folder's tokenizer cannot be loaded."""
    try:
        with _loading:
            from transformers import AutoTokenizer

            tokenizer: Any = AutoTokenizer.from_pretrained(
                path, use_fast=True, trust_remote_code=False, local_files_only=True
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model.path: cannot load the tokenizer of {path}: {error}") from None
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"model.path: {path} has no fast tokenizer; convert it so that it has a tokenizer.json")
    return tokenizer


def load_model(path: str) -> PreTrainedModel:
    """Weights in float32. Raises ModelError if the folder cannot be loaded; never unpickles, never runs its code."""
    import torch
    from safetensors import SafetensorError

    try:
        with _loading:
            from transformers import AutoModelForCausalLM

            _keep_bars_quiet()
            return AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"model.path: cannot load the model of {path}: {error}") from None


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a folder that from_pretrained loads, atomically; `state` replaces the model's own weights if given."""
    if state is not None and model.config.tie_word_embeddings:  # one copy of what is tied; loading ties it again
        tied = set(getattr(model, "_tied_weights_keys", None) or {})
        state = {name: tensor for name, tensor in state.items() if name not in tied}
    _keep_bars_quiet()
    with replacing(path) as temporary:
        model.save_pretrained(temporary, state_dict=state)
        tokenizer.save_pretrained(temporary)


def _keep_bars_quiet() -> None:
    """Ours are the ones to watch."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def transformer_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The blocks that a model is stacked of: its longest list of modules."""
    from torch import nn

    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len)) if lists else []


def turn_dropout_off(model: PreTrainedModel) -> list[str]:
    """Set every dropout probability of the modules to 0; returns the kinds of module that had one.

    Losses of proxies, targets and training are then of the same function. The configuration, and so the saved model,
    keeps its values.
    """
    from torch import nn

    found: set[str] = set()
    for module in model.modules():
        names = ["p"] if isinstance(module, nn.Dropout) else [name for name in vars(module) if "drop" in name]
        for name in names:
            if isinstance(probability := getattr(module, name), float) and probability > 0:
                setattr(module, name, 0.0)
                found.add(type(module).__name__ if name != "p" else "Dropout")
    return sorted(found)


def count_parameters(model: PreTrainedModel) -> int:
    """Trainable parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in _trainable(model))


def parameter_groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices alone: gains and biases are left undecayed, as usual."""
    matrices = [parameter for parameter in _trainable(model) if parameter.ndim >= 2]
    vectors = [parameter for parameter in _trainable(model) if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _trainable(model: PreTrainedModel) -> Iterator[torch.nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)
