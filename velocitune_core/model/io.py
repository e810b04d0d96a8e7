"""Load, save and hash transformers model folders; safetensors only, no pickle, none of a folder's own code."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from velocitune_core.files import replacing
from velocitune_core.model.folder import ModelError
from velocitune_core.model.tokenizer import LOADING

UNTRAINED = "untrained.json"  # in the folder of a model that `velocitune_core.model.build` made: its seed

if TYPE_CHECKING:  # torch and transformers take seconds to import, and most callers need neither
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def load_model(path: str) -> PreTrainedModel:
    """Load a causal language model, its parameters in float32, in eval mode.

    Raises ModelError if the folder cannot be loaded.
    """
    import torch
    from safetensors import SafetensorError

    try:
        with LOADING:
            from transformers import AutoModelForCausalLM

            _disable_progress_bars()
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
    """Write a folder that from_pretrained loads, atomically.

    Args:
        state: parameters and buffers by the model's own names, written in place of the model's; None: the model's.
    """
    if state is not None and model.config.tie_word_embeddings:  # one copy of what is tied; loading ties it again
        tied = set(getattr(model, "_tied_weights_keys", None) or {})
        state = {name: tensor for name, tensor in state.items() if name not in tied}
    _disable_progress_bars()
    with replacing(path) as temporary:
        model.save_pretrained(temporary, state_dict=state)
        tokenizer.save_pretrained(temporary)


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
