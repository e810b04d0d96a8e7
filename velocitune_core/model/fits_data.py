"""Whether a model folder, its tokenizer and the packed rows go together; without torch, if config.json is complete."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from velocitune_core.model.headers import stored_weights

POSITION_LIMITS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")  # names of one setting
_LEARNED_POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?|pos_emb\w*)\.weight$")


@dataclass
class Fit:
    """What is wrong (refused) and what is doubtful (warned of), a line each: field, value, fix."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_length(path: str, sequence_length: int) -> Fit:
    """Compare the length of packed rows with the positions that the model has.

    A model with learned positions has no embedding beyond the last one. Rotary positions go on for ever, and training
    on longer rows is how a context is extended, so more of them than the model has seen are only warned of. Whether the
    model runs on them is tried by `velocitune_core.model.positions`.
    """
    return compare_length(path, sequence_length, positions_of(path))


def compare_length(path: str, sequence_length: int, limit: int | None) -> Fit:
    """Do as `check_length` for a model of `limit` positions; None if they are unknown."""
    if limit is None or sequence_length <= limit:
        return Fit()
    values = f"data.sequence_length: {sequence_length}, and {path} has {limit} positions"
    if any(_LEARNED_POSITIONS.search(each.name) for each in stored_weights(path).tensors):
        return Fit(problems=[f"{values}, each with a learned embedding; set it to {limit} or less"])
    return Fit(
        warnings=[
            f"{values}: the model was not trained on later ones, so its initial losses there are high; set it to "
            f"{limit} or less, or extend the context on purpose, by rope_parameters in its config.json"
        ]
    )


def positions_of(path: str) -> int | None:
    """Return the number of positions that the configuration of a folder names; None if it names none."""
    return position_limit(_text_config(path))


def position_limit(config: Mapping[str, Any]) -> int | None:
    """Return the number of positions that a model's configuration names, under whichever name; None if it has none."""
    return next((config[name] for name in POSITION_LIMITS if isinstance(config.get(name), int)), None)


def check_vocabulary(path: str, largest_id: int) -> Fit:
    """Compare the largest token id of a tokenizer with the embeddings of the model; unused embeddings are fine.

    transformers must be able to read the configuration.
    """
    rows = _text_config(path).get("vocab_size") or config_with_defaults(path).get("vocab_size")
    if not isinstance(rows, int) or largest_id < rows:
        return Fit()
    return Fit(
        problems=[
            f"model.path: the tokenizer of {path} has token ids up to {largest_id}, and the model has {rows} "
            "embeddings; save the tokenizer that belongs to the model, or the model after "
            f"resize_token_embeddings({largest_id + 1})"
        ]
    )


def config_with_defaults(path: str) -> dict[str, Any]:
    """Return the configuration of a folder, of its part on text, with the values that its class has by default."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    return config.get_text_config().to_dict()


def _text_config(path: str) -> dict[str, Any]:
    """Return config.json, of a model of several modalities the part on text; empty if it cannot be read."""
    try:
        tree = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # reported by check_model_folder
    if not isinstance(tree, dict):
        return {}
    text = tree.get("text_config")
    return {**tree, **text} if isinstance(text, dict) else tree
