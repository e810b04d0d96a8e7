"""Typed events of a run or an evaluation, and the JSONL file that they are logged to, one event per line.

The file only grows: a resumed run repeats the steps since its checkpoint, and events of those steps that are logged
already are not logged again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from velocitune_core.config import Precision, describe_problems


class EventFileError(ValueError):
    """A file of events with a line that is no event of this version."""


class EventBase(BaseModel):
    """Fields of every event; `step` counts the optimizer steps taken, or in an evaluation the rows measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    time: float = Field(default_factory=time.time)  # seconds since the Unix epoch
    step: int = 0


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


class Checkpointed(EventBase):
    """A checkpoint is on the disk."""

    event: Literal["checkpointed"] = "checkpointed"
    path: str  # name of its folder
    seconds: float


class Warned(EventBase):
    """A message to the user."""

    event: Literal["warned"] = "warned"
    message: str


class Finished(EventBase):
    """The run is complete."""

    event: Literal["finished"] = "finished"
    seconds: float  # wall time of all attempts


Event = Annotated[
    Started | Stepped | EvaluationStarted | Measured | Evaluated | Reweighted | Checkpointed | Warned | Finished,
    Field(discriminator="event"),
]
_event: TypeAdapter[Event] = TypeAdapter(Event)


class Listener(Protocol):
    """Callable that receives every event."""

    def __call__(self, event: Event) -> None: ...


class EventFile:
    """Listener that appends events to a JSONL file and flushes each line.

    Leaves out an event of a kind and step that an earlier attempt logged, except for starts and warnings. A last line
    that a kill left incomplete is removed first.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_incomplete_line(path)
        self._logged = {(event.event, event.step) for event in read_events(path)}
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        key = (event.event, event.step)
        if key in self._logged and not isinstance(event, Started | EvaluationStarted | Warned):
            return
        self._logged.add(key)
        self._file.write(event.model_dump_json() + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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
