"""The JSON file that an evaluation is started with: one model, and what it is measured on.

As of a TrainJob, the recipe is the identity, and `execution` only says how the result is computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from velocitune_core.config import Execution, Name, Positive, Precision, Section

KEY_LENGTH = 12  # hexadecimal digits of the fingerprint in the name of a run folder
NOT_RECIPE = {
    "name",
    "output",
    "execution",
    "batch_tokens",
    "threads",
    "start_id",
}  # fields that do not decide the result


class HeldOutFile(Section):
    """Packed sequences of one set, shape (sequences, length)."""

    path: str
    sha256: str


class QuestionsFile(Section):
    """A `Questions` file, and how questions are encoded."""

    path: str
    sha256: str
    context_tokens: Positive  # most tokens per question; less if the model's own context is shorter
    tokenizer_sha256: str = ""  # of the tokenizer's files, so that another one is another recipe


class EvaluationJob(Section):
    """One evaluation: of held-out sets, or of benchmark questions."""

    kind: Literal["evaluation"] = "evaluation"
    name: Name
    output: str  # folder: events.jsonl, result.json
    model: str  # transformers folder
    model_sha256: str = ""  # of its parameters
    held_out: dict[Name, HeldOutFile] = Field(default={})
    questions: QuestionsFile | None = None
    document_start: Annotated[int, Field(ge=0)] | None = None  # of held-out sets, as in a TrainJob
    precision: Precision
    execution: Execution = Execution()
    batch_tokens: Positive = 4096  # of questions, per forward pass and process, padding included
    threads: Positive | None = None  # per process
    start_id: str = ""  # of this start by a launcher, for outcome.json

    @model_validator(mode="after")
    def _measures_one_kind(self) -> Self:
        if bool(self.held_out) == (self.questions is not None):
            raise ValueError("a job measures either held_out sets or questions; give one of them")
        return self

    def recipe(self) -> dict[str, Any]:
        """Return all that decides the result, as a JSON-ready tree."""
        return self.model_dump(mode="json", exclude=NOT_RECIPE)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the recipe."""
        return sha256(json.dumps(self.recipe(), sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name of its run folder, as of a TrainJob."""
        return f"{self.name}-{self.fingerprint()[:KEY_LENGTH]}"

    def files(self) -> Iterator[tuple[Path, str]]:
        """Yield each file that is read, with its SHA-256."""
        for file in [*self.held_out.values(), *([] if self.questions is None else [self.questions])]:
            yield Path(file.path), file.sha256
