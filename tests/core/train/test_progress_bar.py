"""What the progress bar shows of the events of a run."""

from __future__ import annotations

import io
import time

import event_samples
import pytest
from event_samples import stepped

from velocitune_core.train import events, progress_bar
from velocitune_core.train.progress_bar import ProgressBar, bar


def started(step: int = 0, resumed_from: int | None = None) -> events.Started:
    return event_samples.started(step=step, resumed_from=resumed_from)


def evaluation_started(step: int = 0) -> events.EvaluationStarted:
    return events.EvaluationStarted(
        step=step,
        name="initial",
        recipe="0" * 64,
        rows=10,
        tokens=1600,
        measured_tokens=160 * step,
        sets=["code"],
        precision="float32",
        parameters=1000,
        device="cpu",
        world_size=1,
    )


def test_the_bar_of_an_evaluation_counts_tokens(capfd: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    for event in (
        evaluation_started(step=5),
        events.Measured(step=10, first=5, nats=[3.0] * 5, tokens=1600, seconds=1.0),
        events.Evaluated(step=10, tokens=0, losses={"code": 3.0}, seconds=1.0),
        events.Finished(step=10, seconds=1.0),
    ):
        bar(event)
    resumed, last = capfd.readouterr().err.split("\n")[:-1]  # in a log every state is a line, without "\r"
    assert resumed == "initial: 5 of 10 sequences were measured before"
    assert last.startswith("initial: 100%") and "1.60k/1.60k" in last


def test_a_state_is_one_line_of_a_log_also_if_it_was_shown_before_the_end(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_bar, "SECONDS_BETWEEN_LINES", 0.01)
    shown = bar(total=2, desc="base")
    for _ in range(2):
        time.sleep(0.02)
        shown.update()
    shown.close()
    for each in bar(iterable=range(2), desc="archives"):
        time.sleep(0.02 + each / 100)
    err = capfd.readouterr().err
    assert "\r" not in err and [line.partition("|")[0] for line in err.splitlines()] == [
        "base:  50%",
        "base: 100%",
        "archives:  50%",
        "archives: 100%",
    ]


def test_every_one_of_many_bars_has_its_line_in_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    bars = [bar(total=1, desc=f"run {number}") for number in range(30)]
    for each in bars:
        each.update()
        each.close()
    assert len(set(capfd.readouterr().err.splitlines())) == 30


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("upper_first", [True, False])
def test_lines_after_bars_of_a_terminal_begin_at_its_edge(monkeypatch: pytest.MonkeyPatch, upper_first: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bars = [bar(total=10, desc=name, leave=False) for name in ("biomed", "general")]
    for each in bars if upper_first else bars[::-1]:
        each.close()
    assert terminal.getvalue().endswith("\r")


def test_a_note_on_compiling_is_shown_if_it_explains_a_pause_or_asks_for_a_compiler(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for note in (
        "not compiled: it would save about 0 s of processor time and cost about 25",
        "not compiled: it would save about 900 s of processor time and cost about 25, but there is no C++ compiler",
        "loss compiled: it would save about 900 s of processor time and cost about 25",
    ):
        bar = ProgressBar()
        bar(event_samples.started(compilation=note))
        assert (note in capfd.readouterr().err) == ("900" in note)
        bar.close()


def test_the_bar_ends_at_the_last_step_with_loss_and_speed(capfd: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    for event in (started(), stepped(10), stepped(20), events.Finished(step=20, seconds=1.0)):
        bar(event)
    shown = capfd.readouterr().err
    assert "train: 100%" in shown and "20/20" in shown
    assert "loss 3.250, 12,345 tokens/s" in shown


def test_a_resumed_run_begins_at_its_checkpoint(capfd: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    bar(started(step=15, resumed_from=15))
    bar.close()
    shown = capfd.readouterr().err
    assert "train: resuming from the checkpoint at step 15 of 20" in shown
    assert "15/20" in shown


def test_what_is_so_in_every_run_of_a_model_is_shown_once_and_other_warnings_in_each(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for model in ("models/mine", "models/mine", "models/small"):
        run = ProgressBar()
        run(events.Warned(message=f"{model}: dropout of the model is off while it is trained", of_model=True))
        run(events.Warned(message="the checkpoint cannot be saved"))
        run.close()
    shown = capfd.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in shown if "dropout" in line] == ["models/mine", "models/small"]
    assert sum("cannot be saved" in line for line in shown) == 3


def test_warnings_are_shown_and_events_before_the_start_are_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    bar(stepped(1))
    bar(events.Warned(message="code reached max_epochs"))
    bar(event_samples.overfitted(9, "code", "law"))
    bar(events.Finished(step=1, seconds=1.0))
    bar.close()
    first, *found = capfd.readouterr().err.splitlines()
    assert first == "code reached max_epochs"
    assert [line.partition(":")[0] for line in found] == [f"{name} is probably overfitted" for name in ("code", "law")]
    assert "grew from 20.0 % to 40.0 %, after 2.5 epochs of its text in this run; training.max_epochs caps" in found[0]
