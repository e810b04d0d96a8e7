"""What the tests of stages share: a workspace in which `prepare` has run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.workspace import paths
from velocitune_core.config import Params, parse_params
from velocitune_core.contracts import DomainManifest, DomainTarget, InitialLosses, Manifest, Split, Targets
from velocitune_core.files import file_sha256


@pytest.fixture
def prepared(workspace: Path, settings: dict[str, Any], tiny_inputs: Path) -> tuple[Params, Manifest]:
    """Settings and manifest of the tiny model and its two domains, whose files are in `prepared/`."""
    domains = {}
    for name, source in {"code": "code", "law": "general"}.items():
        (paths.PREPARED / name).mkdir(parents=True)
        splits = {}
        for split in ("train", "held_out"):
            file = f"{name}/{split}.npy"
            shutil.copyfile(tiny_inputs / source / f"{split}.npy", paths.PREPARED / file)
            rows = np.load(paths.PREPARED / file)
            digest = file_sha256(paths.PREPARED / file)
            splits[split] = Split(file=file, documents=9, sequences=len(rows), tokens=rows.size, sha256=digest)
        domains[name] = DomainManifest(**splits, documents_read=18, duplicates=0, too_short=0)
    manifest = Manifest(sequence_length=16, vocabulary_size=64, tokenizer_sha256="0" * 64, domains=domains)
    manifest.write(paths.MANIFEST)
    settings["data"]["sequence_length"] = 16
    settings["model"]["path"] = str(tiny_inputs / "model")
    settings["training"]["token_budget"] = 2560
    settings["resources"] = {"threads": 1}
    return parse_params(settings), manifest


@pytest.fixture
def measured(prepared: tuple[Params, Manifest]) -> Params:
    """Settings of a workspace in which all stages up to `targets` have run, without files of proxies."""
    InitialLosses(
        precision="float32", losses={"code": 4.2, "law": 4.2}, tokens={"code": 135, "law": 135}, seconds=1.0
    ).write(paths.INITIAL)
    targets = {"code": DomainTarget(target=2.0), "law": DomainTarget(target=3.0)}
    Targets(domains=targets, token_budget=2560).write(paths.TARGETS)
    return prepared[0]
