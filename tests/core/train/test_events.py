"""The event file: events are read back, an incomplete line is removed, every attempt has a number."""

from __future__ import annotations

import math
from pathlib import Path

import event_samples
import pytest

from velocitune_core.train import events
from velocitune_core.train.events import EventFile, EventFileError, read_events, read_events_from

STARTED = events.Started(
    name="train",
    total_steps=9,
    tokens_per_step=64,
    domains=["code", "papers"],
    strategy="velocitune",
    precision="float32",
    parameters=1000,
    device="cpu",
    world_size=1,
)


def stepped(step: int, loss: float = 3.0) -> events.Stepped:
    return events.Stepped(
        step=step,
        tokens=64 * step,
        loss=loss,
        learning_rate=1e-3,
        gradient_norm=0.5,
        tokens_per_second=1e4,
        domain_tokens={"code": 32 * step},
        domain_epochs={"code": 0.1},
    )


ONE_OF_EACH: list[events.Event] = [
    STARTED,
    stepped(1),
    events.EvaluationStarted(
        name="initial",
        recipe="0" * 64,
        rows=9,
        tokens=144,
        measured_tokens=0,
        sets=["code"],
        precision="float32",
        parameters=1000,
        device="cpu",
        world_size=2,
    ),
    events.Measured(step=2, first=0, nats=[1.0 / 3, 2e-17], tokens=32, seconds=0.1),
    events.Evaluated(step=1, tokens=64, losses={"code": 3.25}, seconds=0.1),
    event_samples.overfitted(1, "code"),
    events.Reweighted(step=1, tokens=64, weights={"code": 1.0}, velocity={"code": 0.3}, seconds=0.01),
    events.Checkpointed(step=1, path="step-00000001", seconds=0.2),
    events.Warned(step=1, message="Größe 3 ≥ 2\nsecond line"),
    events.Finished(step=1, seconds=1.5),
]


def write(path: Path, *logged: events.Event) -> None:
    file = EventFile(path)
    for event in logged:
        file(event)
    file.close()


def test_events_are_read_back_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "run" / "events.jsonl"
    write(path, *ONE_OF_EACH)
    assert list(read_events(path)) == ONE_OF_EACH
    assert len(path.read_text().splitlines()) == len(ONE_OF_EACH)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_are_read_back(tmp_path: Path, loss: float) -> None:
    write(tmp_path / "events.jsonl", stepped(1, loss))
    (event,) = read_events(tmp_path / "events.jsonl")
    assert isinstance(event, events.Stepped)
    assert event.loss == loss or (math.isnan(event.loss) and math.isnan(loss))


def test_a_missing_file_has_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "events.jsonl")) == []


def test_each_event_is_on_disk_at_once(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "events.jsonl")
    for number, event in enumerate(ONE_OF_EACH, 1):
        file(event)
        assert len(list(read_events(tmp_path / "events.jsonl"))) == number
    file.close()


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_an_incomplete_last_line_is_removed_and_the_file_still_grows(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "events.jsonl"
    write(path, stepped(1), stepped(2), stepped(3))
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:kept])  # −1: only the line end is missing
    assert [event.step for event in read_events(path)] == [1, 2]
    write(path, stepped(3), stepped(4))
    assert [event.step for event in read_events(path)] == [1, 2, 3, 4]


def test_a_file_of_one_incomplete_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"st')
    write(path, stepped(1))
    assert [event.step for event in read_events(path)] == [1]


def test_every_attempt_logs_under_its_number(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, STARTED, stepped(1), stepped(2))
    before = path.read_bytes()
    write(path, STARTED.model_copy(update={"step": 1, "resumed_from": 1}), stepped(2))
    write(path, stepped(3))
    assert path.read_bytes().startswith(before)  # the file only grows
    assert [(event.attempt, event.event, event.step) for event in read_events(path)] == [
        (1, "started", 0),
        (1, "step", 1),
        (1, "step", 2),
        (2, "started", 1),
        (2, "step", 2),
        (3, "step", 3),
    ]


def test_reading_continues_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, stepped(1), stepped(2))
    read = list(read_events_from(path, 0))
    assert [event.step for event, _ in read] == [1, 2]
    _, offset = read[-1]
    assert offset == path.stat().st_size
    assert list(read_events_from(path, offset)) == []
    write(path, stepped(3))
    with path.open("ab") as file:
        file.write(b'{"event":"step","st')  # being written right now
    ((event, behind),) = read_events_from(path, offset)
    assert event.step == 3
    assert list(read_events(path, behind)) == []
    assert [event.step for event in read_events(path, read[0][1])] == [2, 3]


def test_an_event_of_an_older_version_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, stepped(1), stepped(2), STARTED)
    (_, behind), *_ = read_events_from(path, 0)
    path.write_text(path.read_text().replace('"precision":"float32",', ""))  # as written before the field was added
    for start in (0, behind):
        with pytest.raises(EventFileError) as caught:
            list(read_events_from(path, start))
        assert str(caught.value).startswith(f"{path}, line 3: ")
        assert "started.precision" in str(caught.value) and "by an older version" in str(caught.value)
        assert str(caught.value).endswith("start the run over with --fresh")
    with pytest.raises(EventFileError, match="line 3"):
        EventFile(path)
