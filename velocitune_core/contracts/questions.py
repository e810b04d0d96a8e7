"""Sampled questions of downstream tasks with their gold answers, the same for every model that is evaluated."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from velocitune_core.contracts.contract import Contract, Part


class Question(Part):
    """A question and its gold answer."""

    identifier: str
    context: str  # with the worked examples before the question
    continuation: str  # the gold answer


class TaskQuestions(Part):
    """The sample of one task."""

    excluded: Annotated[int, Field(ge=0)]  # questions found in training documents; of the whole task, before sampling
    questions: list[Question] = Field(min_length=1)


class Questions(Contract):
    """runs/questions/<hash>.json"""

    families: dict[str, dict[str, TaskQuestions]]  # family → task

    @property
    def tasks(self) -> dict[str, TaskQuestions]:
        """All tasks by name, whatever their family."""
        return {name: task for tasks in self.families.values() for name, task in tasks.items()}
