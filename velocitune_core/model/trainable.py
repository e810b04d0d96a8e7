"""What in a model's folder keeps it from being trained as it describes; needs neither torch nor transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from velocitune_core.model.headers import quantised_problems, stored_weights


def check_trainable(path: str) -> list[str]:
    """Return the reasons why the model of a folder cannot be trained; empty for one whose configuration is unreadable.

    `check_model_folder` reports the latter.
    """
    try:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(config, dict):
        return []
    named = any(section.get("quantization_config") for _, section in _sections(config, path))
    return training_problems(config, path) + ([] if named else quantised_problems(path, stored_weights(path).tensors))


def training_problems(config: Mapping[str, Any], path: str) -> list[str]:
    """Return the reasons why a model with this configuration cannot be trained, one line each."""
    problems = []
    for where, section in _sections(config, path):
        if quantisation := section.get("quantization_config"):
            method = quantisation.get("quant_method") if isinstance(quantisation, dict) else quantisation
            problems.append(
                f"{where} has quantization_config (quant_method {method!r}), and quantised weights cannot be trained; "
                "give the folder of the model that was quantised, or load this one with transformers, call its "
                "dequantize() and save it with save_pretrained"
            )
        if section.get("output_router_logits") and _router_coefficient(section):
            problems.append(
                f"{where} sets a router loss (output_router_logits true, router_aux_loss_coef "
                f"{_router_coefficient(section)}), and none is added here, because it would depend on the sizes of "
                "micro-batches and the number of processes; set output_router_logits to false to train without it"
            )
    return problems


def training_notes(config: Mapping[str, Any]) -> list[str]:
    """Return what the user of a model that can be trained should know, one line each."""
    return [
        "the model is a mixture of experts; no router loss is added (output_router_logits of its config.json is false)"
        for _, section in _sections(config, "")
        if _router_coefficient(section)
    ]


def _sections(config: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a configuration and that of its text model, if it has one, each with its place."""
    yield f"model.path: {path}/config.json", config
    if isinstance(text := config.get("text_config"), dict):
        yield f"model.path: {path}/config.json: text_config", text


def _router_coefficient(section: Mapping[str, Any]) -> float:
    return section.get("router_aux_loss_coef") or 0.0
