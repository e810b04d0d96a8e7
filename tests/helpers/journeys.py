"""A small workspace whose comparison has every kind of run, before and after its folder of jobs has travelled."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.workspace import paths
from velocitune_core.config import Params, parse_params
from velocitune_core.contracts import DomainManifest, Manifest, Split
from velocitune_core.files import file_sha256

RUNS = {
    "static": {"strategy": "static"},
    "velocitune": {"strategy": "velocitune"},
    "zero": {"strategy": "velocitune", "targets": "zero"},
    "random": {"strategy": "velocitune", "targets": "random"},
    "doremi": {"strategy": "doremi"},
    "held": {"strategy": "static", "weights_of": "velocitune"},
}
SETTINGS: dict[str, Any] = {
    "domains": {name: {"source": {"type": "jsonl", "path": f"{name}.jsonl"}} for name in ("code", "law")},
    "data": {"path": "data/raw", "sequence_length": 16},
    "model": {"path": "models/mine"},
    "evaluation": {"every_steps": 2},
    "proxies": {"fractions": [0.2, 0.4, 0.8], "seeds": [1], "evaluations": 2},
    "targets": {"bootstrap": 0},
    "compare": {"seeds": [1], "runs": RUNS},
    "execution": {},
    "strategy": {"name": "velocitune", "options": {}},
    "training": {
        "token_budget": 2560,
        "batch_sequences": 16,
        "precision": "float32",
        "optimizer": {"learning_rate": 0.01},
    },
    "resources": {"threads": 1},
}


@dataclass(frozen=True)
class Journey:
    """The workspace that wrote a folder, and the folder."""

    home: Path
    folder: Path


def settings(**changes: Any) -> Params:
    """The settings of the workspace; `a__b=1` sets a.b."""
    tree = {name: dict(section) for name, section in SETTINGS.items()}
    for path, value in changes.items():
        section, key = path.split("__")
        tree[section][key] = value
    return parse_params(tree)


def write_workspace(home: Path, inputs: Path) -> None:
    """What the stages before the runs make, from the inputs of `tiny.write_inputs`."""
    shutil.copytree(inputs / "model", home / "models/mine")
    domains = {}
    for name, source in {"code": "code", "law": "general"}.items():
        (home / paths.PREPARED / name).mkdir(parents=True)
        splits = {}
        for split in ("train", "held_out"):
            file = home / paths.PREPARED / name / f"{split}.npy"
            shutil.copyfile(inputs / source / f"{split}.npy", file)
            rows = np.load(file)
            facts = {"sequences": len(rows), "tokens": rows.size, "sha256": file_sha256(file)}
            splits[split] = Split(file=f"{name}/{split}.npy", documents=9, **facts)
        domains[name] = DomainManifest(**splits, documents_read=18, duplicates=0, too_short=0)
    manifest = Manifest(sequence_length=16, vocabulary_size=64, tokenizer_sha256="0" * 64, domains=domains)
    manifest.write(home / paths.MANIFEST)
