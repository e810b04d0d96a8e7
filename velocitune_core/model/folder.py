"""Checks of a transformers model folder that need neither torch nor transformers."""

from __future__ import annotations

import json
from pathlib import Path


class ModelError(ValueError):
    """A model folder that cannot be used."""


def check_model_folder(path: str) -> list[str]:
    """Return the reasons why `path` is not a transformers folder with safetensors and a tokenizer; empty if it is."""
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
