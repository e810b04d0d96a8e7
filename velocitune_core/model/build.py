"""Make a tokenizer and a randomly initialised Llama, for projects that start without a pretrained model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from velocitune_core.config import Shape
from velocitune_core.files import write_text
from velocitune_core.model.io import UNTRAINED, save_model

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with an end-of-text token; it encodes any text without loss."""
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


def llama_config(
    shape: Shape, sequence_length: int, vocabulary_size: int, end_of_text: int | None = None
) -> LlamaConfig:
    """Return the configuration of a Llama of the configured shape; without the id of END_OF_TEXT, its shape alone."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=sequence_length,
        tie_word_embeddings=True,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
    )


def build_llama(shape: Shape, tokenizer: PreTrainedTokenizerFast, sequence_length: int, seed: int) -> PreTrainedModel:
    """Build a Llama of the configured shape with random parameters and tied embeddings.

    Leaves torch's global generator as it was.
    """
    import torch
    from transformers import LlamaForCausalLM

    end_of_text = tokenizer.eos_token_id
    assert isinstance(end_of_text, int)
    config = llama_config(shape, sequence_length, len(tokenizer), end_of_text)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_untrained(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int, folder: Path) -> None:
    """Write a model that was built with a seed, and the seed, from which `draw_parameters` can make them again."""
    save_model(model, tokenizer, folder)
    write_text(folder / UNTRAINED, json.dumps({"seed": seed}))


def draw_parameters(folder: Path) -> None:
    """Write the parameters of an untrained model into its folder, if only configuration, tokenizer and seed are there.

    Leaves torch's global generator as it was.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if any(folder.glob("*.safetensors")):
        return
    seed = json.loads((folder / UNTRAINED).read_text(encoding="utf-8"))["seed"]
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with TemporaryDirectory(dir=folder) as temporary:
        model.save_pretrained(temporary)
        for file in Path(temporary).glob("*.safetensors"):
            file.replace(folder / file.name)
