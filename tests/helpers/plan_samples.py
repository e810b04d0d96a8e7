"""Plans of models of which only the configuration is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.planning.build import make_plan
from velocitune_core.config import parse_params

SEVEN_BILLION = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


def write_config(folder: str, config: dict[str, Any]) -> None:
    Path(folder).mkdir(parents=True)
    (Path(folder) / "config.json").write_text(json.dumps(config))


def plan_of(tree: dict[str, Any], **options: Any) -> Any:
    return make_plan(parse_params(tree), **{"probe": False, **options})
