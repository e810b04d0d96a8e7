"""What the training loop says, typed, and the JSONL file it says it to.

One line per event. The file only grows: a resumed run repeats the steps since its checkpoint, and what was already
said of them is not said twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from velocitune_core.config import Precision


class EventBase(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    time: float = Field(default_factory=time.time)  # seconds since the Unix epoch
    step: int = 0


class Started(EventBase):
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
    event: Literal["step"] = "step"
    tokens: int
    loss: float  # nats per token of the batch
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    domain_tokens: dict[str, int]  # seen so far
    domain_epochs: dict[str, float]


class Evaluated(EventBase):
    event: Literal["evaluated"] = "evaluated"
    tokens: int
    losses: dict[str, float]
    seconds: float


class Reweighted(EventBase):
    event: Literal["reweighted"] = "reweighted"
    tokens: int
    weights: dict[str, float]
    velocity: dict[str, float] | None = None
    seconds: float


class Checkpointed(EventBase):
    event: Literal["checkpointed"] = "checkpointed"
    path: str
    seconds: float


class Warned(EventBase):
    event: Literal["warned"] = "warned"
    message: str


class Finished(EventBase):
    event: Literal["finished"] = "finished"
    seconds: float


Event = Annotated[
    Started | Stepped | Evaluated | Reweighted | Checkpointed | Warned | Finished, Field(discriminator="event")
]
_event: TypeAdapter[Event] = TypeAdapter(Event)


class Listener(Protocol):
    def __call__(self, event: Event) -> None: ...


class EventFile:
    """Appends events to a JSONL file, each line flushed; leaves out what an earlier life of the run already said."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(path)
        self._said = {(event.event, event.step) for event in read_events(path)}
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        key = (event.event, event.step)
        if key in self._said and not isinstance(event, Started | Warned):
            return
        self._said.add(key)
        self._file.write(event.model_dump_json() + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_events(path: Path, offset: int = 0) -> Iterator[Event]:
    """The whole lines of an event file from a byte offset on; a line still being written is left for later."""
    for event, _ in read_events_from(path, offset):
        yield event


def read_events_from(path: Path, offset: int) -> Iterator[tuple[Event, int]]:
    """Like `read_events`, with the byte offset behind each event."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield _event.validate_json(line), offset


def _drop_torn_line(path: Path) -> None:
    """Cut a last line that a kill left half written."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("rb+") as file:
            file.truncate(whole)
