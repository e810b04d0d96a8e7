"""Typed events of a run or an evaluation, and the JSONL file that they are logged to, one event per line.

The file only grows. A resumed run repeats the steps since its checkpoint and logs them under the number of its attempt;
`timeline.py` leaves out what an earlier attempt logged of these steps.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from velocitune_core.config import Precision, describe_problems
from velocitune_core.contracts import Overfitting
from velocitune_core.contracts.overfitting import REMEDY
from velocitune_core.train.retried_writes import RetriedWriter, open_to_append


class EventFileError(ValueError):
    """A file of events with a line that is no event of this version."""


class EventBase(BaseModel):
    """Fields of every event; `step` counts the optimizer steps taken, or in an evaluation the rows measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    time: float = Field(default_factory=time.time)  # seconds since the Unix epoch
    step: int = 0
    attempt: int = 1  # start of the run that logged it, numbered by the file


class Started(EventBase):
    """An attempt began."""

    event: Literal["started"] = "started"
    name: str
    total_steps: int
    tokens_per_step: int
    domains: list[str]
    strategy: str
    precision: Precision
    parameters: int
    device: str
    world_size: int
    compilation: str = ""  # what torch.compile compiles, and why
    hardware: str = ""  # of the main rank, in words
    resumed_from: int | None = None  # step of the checkpoint, None for a fresh start


class Stepped(EventBase):
    """One of every `log_every_steps` steps was taken."""

    event: Literal["step"] = "step"
    tokens: int
    loss: float  # nats per token of the batch
    learning_rate: float  # that this step was taken with
    gradient_norm: float  # before clipping
    tokens_per_second: float  # since the last logged step, without evaluations and checkpoints
    domain_tokens: dict[str, int]  # seen so far
    domain_epochs: dict[str, float]


class EvaluationStarted(EventBase):
    """An attempt of an evaluation began; `step` rows were measured by earlier ones."""

    event: Literal["evaluation_started"] = "evaluation_started"
    name: str
    recipe: str  # its fingerprint
    rows: int  # in all: packed sequences or questions
    tokens: int  # of all rows
    measured_tokens: int  # of the first `step` rows
    sets: list[str]
    precision: Precision
    parameters: int
    device: str
    world_size: int


class Measured(EventBase):
    """One forward pass of every rank measured the rows from `first` to `step` − 1 of an evaluation."""

    event: Literal["measured"] = "measured"
    first: int
    nats: list[float]  # of each of these rows
    tokens: int  # of the rows measured so far
    seconds: float  # of all attempts so far


class Evaluated(EventBase):
    """Held-out losses were measured."""

    event: Literal["evaluated"] = "evaluated"
    tokens: int
    losses: dict[str, float]  # nats per token
    seconds: float


class Reweighted(EventBase):
    """Domain weights for the next steps; at step 0 the initial ones."""

    event: Literal["reweighted"] = "reweighted"
    tokens: int
    weights: dict[str, float]
    velocity: dict[str, float] | None = None
    seconds: float


class Overfitted(EventBase):
    """An evaluation found domains overfitted for the first time in this run."""

    event: Literal["overfitted"] = "overfitted"
    domains: dict[str, Overfitting]

    @property
    def messages(self) -> list[str]:
        """A warning per domain."""
        return [f"{each.described(name)}; {REMEDY}" for name, each in self.domains.items()]


class Checkpointed(EventBase):
    """A checkpoint is on the disk."""

    event: Literal["checkpointed"] = "checkpointed"
    path: str  # name of its folder
    seconds: float


class Warned(EventBase):
    """A message to the user."""

    event: Literal["warned"] = "warned"
    message: str
    of_model: bool = False  # the same for every run of a model


class Finished(EventBase):
    """The run is complete."""

    event: Literal["finished"] = "finished"
    seconds: float  # wall time of all attempts, without the steps that were abandoned


Event = Annotated[
    Started
    | Stepped
    | EvaluationStarted
    | Measured
    | Evaluated
    | Overfitted
    | Reweighted
    | Checkpointed
    | Warned
    | Finished,
    Field(discriminator="event"),
]
_event: TypeAdapter[Event] = TypeAdapter(Event)


class Listener(Protocol):
    """Callable that receives every event."""

    def __call__(self, event: Event) -> None: ...


class EventFile:
    """Listener that appends events to a JSONL file, each under the number of this attempt.

    An event that cannot be written, as on a full disk, is kept and written before the next one; only `Finished` must
    reach the disk at once. A last line that a kill left incomplete is removed first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _remove_incomplete_line(path)
        self._attempt = 1 + max((event.attempt for event in read_events(path)), default=0)
        self._descriptor = open_to_append(path)
        self._writer = RetriedWriter(self._descriptor)

    def __call__(self, event: Event) -> None:
        """Log an event. Raises OSError if it is the last one and cannot be written."""
        numbered = event.model_copy(update={"attempt": self._attempt})
        self._writer.write(numbered.model_dump_json().encode() + b"\n")
        if isinstance(event, Finished) and (problem := self._writer.problem) is not None:
            raise OSError(problem.errno, f"its last events cannot be written: {problem.strerror}", str(self._path))

    def close(self) -> None:
        """Close the file, after one more try to write what is kept."""
        self._writer.write()
        if self._writer.problem is not None:
            sys.stderr.write(f"{self._path}: its last events are lost: {self._writer.problem}\n")
        os.close(self._descriptor)


def read_events(path: Path, offset: int = 0) -> Iterator[Event]:
    """Yield the events from a byte offset on; none if there is no file. Skips a line that is still being written.

    Raises EventFileError at a line that is no event, as in the file of an older version.
    """
    for event, _ in read_events_from(path, offset):
        yield event


def read_events_from(path: Path, offset: int) -> Iterator[tuple[Event, int]]:
    """Yield events as `read_events` does, each with the byte offset of the end of its line."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                event = _event.validate_json(line)
            except ValidationError as error:
                number = path.read_bytes()[:offset].count(b"\n") + 1
                raise EventFileError(
                    f"{path}, line {number}: no event of this version of Velocitune:\n{describe_problems(error)}\n"
                    "  the run was written by an older version, or the file is corrupt; start the run over with --fresh"
                ) from None
            offset += len(line)
            yield event, offset


def _remove_incomplete_line(path: Path) -> None:
    """Cut off a last line without an end, which a kill left."""
    if not path.exists():
        return
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        with path.open("rb+") as file:
            file.truncate(complete)
