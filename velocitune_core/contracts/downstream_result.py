"""Bits per byte of gold answers, per model, family of tasks and task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from velocitune_core.config import Precision
from velocitune_core.contracts.contract import Contract, Part


class DownstreamTask(Part):
    """Gold answers of one task: sums over the scored instances."""

    instances: Annotated[int, Field(gt=0)]
    excluded: Annotated[int, Field(ge=0)]  # instances found in training documents; of the whole task, before sampling
    shortened: Annotated[int, Field(ge=0)]  # instances whose answer was too long for the context and was truncated
    tokens: Annotated[int, Field(gt=0)]
    bytes: Annotated[int, Field(gt=0)]
    nats: FiniteFloat
    bits_per_byte: FiniteFloat  # nats / (ln 2 · bytes)


class DownstreamScores(Part):
    """Scores of one model."""

    precision: Precision  # of matrix products
    context_tokens: int  # maximum length of an instance
    families: dict[str, FiniteFloat]  # bits per byte: unweighted mean over the family's tasks
    tasks: dict[str, dict[str, DownstreamTask]]  # family → task
    seconds: float


class DownstreamResult(Contract):
    """results/downstream.json"""

    models: dict[str, DownstreamScores] = Field(min_length=1)  # by folder
