"""The rows of an evaluation, and their sums by set."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tiny import LENGTH

from velocitune_core.contracts import Question, Questions, TaskQuestions
from velocitune_core.evaluation.evaluation_job import HeldOutFile
from velocitune_core.evaluation.measured_sets import EvaluationError, MeasuredRows, held_out_rows, question_rows
from velocitune_core.evaluation.scored_rows import ScoredRow
from velocitune_core.model.tokenizer import load_tokenizer


def write(folder: Path, **sequences: int) -> dict[str, HeldOutFile]:
    for name, count in sequences.items():
        np.save(folder / f"{name}.npy", np.full((count, LENGTH), len(name), dtype=np.uint16))
    return {name: HeldOutFile(path=str(folder / f"{name}.npy"), sha256="") for name in sequences}


def test_every_held_out_sequence_is_a_row_set_by_set(tmp_path: Path) -> None:
    found = held_out_rows(write(tmp_path, code=3, law=1))
    assert (found.names, found.owners) == (["code", "law"], [0, 0, 0, 1])
    assert [row.scored for row in found.rows] == [LENGTH - 1] * 4
    assert [int(row.tokens[0]) for row in found.rows] == [4, 4, 4, 3]
    sums = found.sums([1.0, 2.0, 3.0, 30.0])
    assert (sums["code"].sequences, sums["code"].tokens, sums["code"].nats) == (3, 3 * (LENGTH - 1), 6.0)
    assert sums["law"].loss == 30.0 / (LENGTH - 1) and sums["law"].bytes is None


def test_files_that_are_missing_or_empty_are_named(tmp_path: Path) -> None:
    files = write(tmp_path, code=3, law=0)
    with pytest.raises(EvaluationError, match=r"law\.npy'\]: no sequences to measure"):
        held_out_rows(files)
    Path(files["code"].path).unlink()
    with pytest.raises(EvaluationError, match=r"code\.npy'\]: no such packed files"):
        held_out_rows(files)


def test_questions_of_all_tasks_are_rows_the_longest_first(tiny_inputs: Path) -> None:
    def task(*answers: int) -> TaskQuestions:
        questions = [Question(identifier=str(n), context="word1", continuation=" word2" * n) for n in answers]
        return TaskQuestions(excluded=0, questions=questions)

    questions = Questions(families={"reading": {"a": task(2, 5)}, "code": {"b": task(20, 3)}})
    found = question_rows(questions, load_tokenizer(str(tiny_inputs / "model")), LENGTH)
    assert [(found.names[owner], row.scored) for owner, row in zip(found.owners, found.rows, strict=True)] == [
        ("b", LENGTH - 1),  # cut
        ("a", 5),
        ("b", 3),
        ("a", 2),
    ]
    sums = found.sums([4.0, 3.0, 2.0, 1.0])
    assert {name: (each.nats, each.tokens, each.bytes, each.shortened) for name, each in sums.items()} == {
        "a": (4.0, 7, 7 * len(" word2"), 0),
        "b": (6.0, LENGTH + 2, (LENGTH + 2) * len(" word2"), 1),
    }


def test_values_that_are_not_finite_are_refused_with_the_sets_they_belong_to() -> None:
    rows = MeasuredRows(["code", "law"], [0, 0, 1], [ScoredRow((1, 2), 1)] * 3)
    rows.check_finite(0, [1.0, 2.0, 3.0])
    rows.check_finite(3, [])
    with pytest.raises(EvaluationError, match=r"^law: the model gives nan nats; its parameters are corrupt"):
        rows.check_finite(1, [1.0, math.nan])
    with pytest.raises(EvaluationError, match=r"^code, law: the model gives inf nats"):
        rows.check_finite(0, [math.inf, 0.0, math.nan])
