"""Load, save and hash transformers model folders; safetensors only, no pickle, none of a folder's own code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from velocitune_core.config import SaveDtype
from velocitune_core.files import replacing
from velocitune_core.model.complete import compare_weights, load_with_report
from velocitune_core.model.folder import ModelError
from velocitune_core.model.tokenizer import LOADING
from velocitune_core.model.tokenizer_files import write_tokenizer

UNTRAINED = "untrained.json"  # in the folder of a model that `velocitune_core.model.build` made: its seed

if TYPE_CHECKING:  # torch and transformers take seconds to import, and most callers need neither
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

STORED: Mapping[str, SaveDtype] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # by safetensors' names


def load_model(path: str) -> PreTrainedModel:
    """Load a causal language model, its parameters in float32, in eval mode.

    Raises ModelError if the folder cannot be loaded, or lacks weights of the model, which would be random then.
    """
    import torch

    model, report = load_with_report(path, dtype=torch.float32)
    if problems := compare_weights(path, model, report).problems:
        raise ModelError("\n".join(problems))
    return model


def model_without_weights(path: str) -> PreTrainedModel:
    """Build the model that a folder describes, in float32 on the meta device: its weights take no memory.

    Raises ModelError if the folder describes no causal language model.
    """
    import torch

    try:
        with LOADING, torch.device("meta"):
            from transformers import AutoConfig, AutoModelForCausalLM

            shape = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
            return AutoModelForCausalLM.from_config(shape, dtype=torch.float32, trust_remote_code=False).eval()
    except Exception as error:  # as above
        raise ModelError(f"model.path: cannot build the model of {path}: {error}") from None


def stored_dtype(path: str) -> SaveDtype:
    """Return the dtype that most weights of a folder are stored in; float32 for one that a model is not saved in."""
    from safetensors import safe_open

    elements: Counter[SaveDtype] = Counter()
    for file in Path(path).glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (it is no dictionary)
                part = weights.get_slice(name)
                elements[STORED.get(part.get_dtype(), "float32")] += prod(part.get_shape())
    return elements.most_common(1)[0][0] if elements else "float32"


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast | str,
    path: Path,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a folder that from_pretrained loads, atomically; arguments are those of `write_model`."""
    with replacing(path) as temporary:
        write_model(model, tokenizer, temporary, state)


def write_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast | str,
    folder: Path,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write model and tokenizer into an existing folder.

    Args:
        tokenizer: see `write_tokenizer`.
        state: parameters and buffers by the model's own names, written in place of the model's; None: the model's.
            config.json names the dtype of its parameters.
    """
    dtype = model.dtype if state is None else _dtype_of(model, state)
    if state is not None and model.config.tie_word_embeddings:  # one copy of what is tied; loading ties it again
        tied = set(getattr(model, "_tied_weights_keys", None) or {})
        state = {name: tensor for name, tensor in state.items() if name not in tied}
    _disable_progress_bars()
    model.save_pretrained(folder, state_dict=state)
    _name_dtype(folder / "config.json", str(dtype).removeprefix("torch."))
    write_tokenizer(tokenizer, folder)


def _dtype_of(model: PreTrainedModel, state: dict[str, torch.Tensor]) -> torch.dtype:
    return next(state[name].dtype for name, parameter in model.named_parameters() if parameter.is_floating_point())


def _name_dtype(config: Path, dtype: str) -> None:
    """Let a configuration name the dtype of the weights beside it: transformers writes that of the model in memory."""
    content = json.loads(config.read_text(encoding="utf-8"))
    if content.get("dtype") != dtype:
        content["dtype"] = dtype
        config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def model_digest(path: Path) -> str:
    """Return one SHA-256, in hexadecimal, over a model folder's configuration and parameters.

    Of an untrained model the seed counts in place of the parameters: another processor may draw them with other last
    digits.
    """
    digest = sha256()
    untrained = path / UNTRAINED
    parameters = [untrained] if untrained.exists() else path.glob("*.safetensors")
    for file in sorted([path / "config.json", *parameters]):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _disable_progress_bars() -> None:
    """Turn off transformers' own bars, which would overwrite the run's progress bar."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
