"""Evaluations of the tiny model by the training program, in forked processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forked import ForkedRun
from tiny import LENGTH, VOCABULARY, llama, write_job
from trainings import SECONDS_FOR_ANYTHING

from velocitune_core.contracts import EvaluationResult
from velocitune_core.files import file_sha256

UNEVEN = {"code": 7, "law": 1, "papers": 5}  # sequences: no multiple of two, and a set of fewer than two ranks


def write_sets(folder: Path, sequences: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """`held_out` of a job: sets of so many random sequences."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for name, count in sequences.items():
        np.save(folder / f"{name}.npy", random.integers(VOCABULARY, size=(count, LENGTH), dtype=np.uint16))
    paths = {name: folder / f"{name}.npy" for name in sequences}
    return {name: {"path": str(path), "sha256": file_sha256(path)} for name, path in paths.items()}


def write_questions(path: Path, tasks: Mapping[str, list[int]]) -> dict[str, Any]:
    """`questions` of a job: per task, a context and an answer of twice these numbers of words."""
    found = {
        name: {
            "excluded": 0,
            "questions": [
                {"identifier": f"{name}#{n}", "context": " word1 word7" * n, "continuation": " word2 word3" * n}
                for n in numbers
            ],
        }
        for name, numbers in tasks.items()
    }
    path.write_text(json.dumps({"families": {"all": found}}))
    return {"path": str(path), "sha256": file_sha256(path), "context_tokens": LENGTH}


def sharp_model(folder: Path, inputs: Path) -> Path:
    """A copy of the tiny model whose predictions are far from uniform."""
    shutil.copytree(inputs / "model", folder)
    model = llama()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(40)
    model.save_pretrained(folder)
    return folder


def evaluation(model: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """A job of two sequences per pass and rank, that lacks only what it measures."""
    return {
        "kind": "evaluation",
        "name": "measure",
        "output": str(output),
        "model": str(model),
        "precision": "float32",
        "execution": {"evaluation_micro_batch_sequences": 2},
        "batch_tokens": 2 * LENGTH,
        "threads": 1,
        **changes,
    }


def start(tree: dict[str, Any], ranks: int = 1) -> ForkedRun:
    return ForkedRun([str(write_job(tree))], ranks)


def ended(process: ForkedRun, status: int) -> str:
    """Wait for the end, which has that status; return what was said."""
    _, said = process.communicate(SECONDS_FOR_ANYTHING)
    assert process.returncode == status, said
    return said


def evaluate(tree: dict[str, Any], ranks: int = 1) -> EvaluationResult:
    ended(start(tree, ranks), 0)
    return EvaluationResult.read(Path(tree["output"]) / "result.json")
