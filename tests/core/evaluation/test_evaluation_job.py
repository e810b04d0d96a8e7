"""The job of an evaluation: what it may hold, and which fields are its identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from velocitune_core.config import ConfigError
from velocitune_core.evaluation.evaluation_job import NOT_RECIPE, EvaluationJob
from velocitune_core.train.job import read_job

HELD_OUT = {"code": {"path": "code.npy", "sha256": "0"}}
QUESTIONS = {"path": "questions.json", "sha256": "1", "context_tokens": 64}


def tree(**changes: Any) -> dict[str, Any]:
    common = {"kind": "evaluation", "name": "initial", "output": "out", "model": "models/base", "precision": "float32"}
    return {**common, "held_out": HELD_OUT, **changes}


def make(**changes: Any) -> EvaluationJob:
    return EvaluationJob.model_validate(tree(**changes))


def test_the_way_of_computing_is_no_part_of_the_identity() -> None:
    other = make(name="x", output="y", execution={"compile": "never"}, batch_tokens=9, threads=3)
    assert other.fingerprint() == make().fingerprint()
    changes = [
        {"model": "x"},
        {"model_sha256": "9"},
        {"precision": "bfloat16"},
        {"held_out": {}, "questions": QUESTIONS},
        {"document_start": 1},
    ]
    assert len({make(**change).fingerprint() for change in [{}, *changes]}) == len(changes) + 1
    assert NOT_RECIPE | {key for change in changes for key in change} | {"kind"} == set(EvaluationJob.model_fields)


@pytest.mark.parametrize("changes", [{"held_out": {}}, {"questions": QUESTIONS}])
def test_a_job_measures_one_kind_of_sets(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="either held_out sets or questions"):
        make(**changes)


def test_its_files_are_those_it_reads() -> None:
    assert list(make().files()) == [(Path("code.npy"), "0")]
    assert list(make(held_out={}, questions=QUESTIONS).files()) == [(Path("questions.json"), "1")]


def test_the_training_program_reads_both_kinds_of_jobs(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(tree()))
    assert read_job(path) == make()
    path.write_text(json.dumps(tree(precision="auto", extra=1)))
    with pytest.raises(
        ConfigError, match=r"(?s)precision: .*'float32' or 'bfloat16' \(got 'auto'\).*extra: unknown key"
    ):
        read_job(path)
    path.write_text(json.dumps({"name": "training"}))
    with pytest.raises(ConfigError, match="total_steps: Field required"):
        read_job(path)
    path.write_text("[]")
    with pytest.raises(ConfigError, match="whole file"):
        read_job(path)
    path.write_text(json.dumps(tree())[:-1] + ', "precision": "bfloat16"}')
    with pytest.raises(ConfigError, match=r"job\.json: the key 'precision' is there twice in one object; remove one"):
        read_job(path)
