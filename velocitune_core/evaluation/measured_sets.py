"""What an evaluation measures: the rows of its held-out sets or tasks, in a fixed order, and their sums by set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from velocitune_core.contracts import MeasuredSet, Questions
from velocitune_core.data.dataset import load_split
from velocitune_core.evaluation.bits_per_byte import encode
from velocitune_core.evaluation.evaluation_job import HeldOutFile
from velocitune_core.evaluation.scored_rows import ScoredRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class EvaluationError(ValueError):
    """A model or sets that cannot be evaluated."""


@dataclass(frozen=True)
class MeasuredRows:
    """The rows of all sets, in the order in which they are measured."""

    names: list[str]  # of the sets
    owners: list[int]  # position in `names` of each row's set
    rows: list[ScoredRow]

    def check_finite(self, first: int, nats: Sequence[float]) -> None:
        """Raise EvaluationError naming the sets of rows from `first` on whose values are not finite."""
        bad = [number for number, value in enumerate(nats, start=first) if not math.isfinite(value)]
        if bad:
            sets = sorted({self.names[self.owners[number]] for number in bad})
            raise EvaluationError(
                f"{', '.join(sets)}: the model gives {nats[bad[0] - first]} nats; its parameters are corrupt: "
                "train it again, or give another model"
            )

    def sums(self, nats: Sequence[float]) -> dict[str, MeasuredSet]:
        """Return the sums of all rows' values by set, which do not depend on batches or ranks."""
        members: list[list[int]] = [[] for _ in self.names]
        for number, owner in enumerate(self.owners):
            members[owner].append(number)
        return {
            name: _sum([self.rows[number] for number in found], math.fsum(nats[number] for number in found))
            for name, found in zip(self.names, members, strict=True)
        }


def held_out_rows(files: Mapping[str, HeldOutFile]) -> MeasuredRows:
    """Return the sequences of held-out sets, memory-mapped, set by set; all their tokens but the first are scored.

    Raises EvaluationError naming every missing or empty file.
    """
    if missing := [file.path for file in files.values() if not Path(file.path).is_file()]:
        raise EvaluationError(f"{missing}: no such packed files; run the stage `prepare`")
    splits = [load_split(Path(file.path)) for file in files.values()]
    if empty := [file.path for file, split in zip(files.values(), splits, strict=True) if not len(split)]:
        raise EvaluationError(f"{empty}: no sequences to measure; run the stage `prepare`")
    owners = [number for number, split in enumerate(splits) for _ in range(len(split))]
    rows = [ScoredRow(row, len(row) - 1) for split in splits for row in split]
    return MeasuredRows(list(files), owners, rows)


def question_rows(questions: Questions, tokenizer: PreTrainedTokenizerFast, window: int) -> MeasuredRows:
    """Return the questions of all tasks, longest first: batches hold similar lengths, and lack of memory shows at once.

    Raises DownstreamError for a question that the tokenizer cannot encode.
    """
    tasks = questions.tasks
    found = [
        (number, encode(question, tokenizer, window))
        for number, task in enumerate(tasks.values())
        for question in task.questions
    ]
    found.sort(key=lambda each: -len(each[1].tokens))  # stable, so the order is the same for every start
    return MeasuredRows(list(tasks), [number for number, _ in found], [row for _, row in found])


def _sum(rows: Sequence[ScoredRow], nats: float) -> MeasuredSet:
    counted = [row.bytes for row in rows if row.bytes is not None]
    return MeasuredSet(
        sequences=len(rows),
        tokens=sum(row.scored for row in rows),
        nats=nats,
        bytes=sum(counted) if len(counted) == len(rows) else None,
        shortened=sum(row.shortened for row in rows),
    )
