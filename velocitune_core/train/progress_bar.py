"""A progress bar with an estimate of the remaining time, driven by events."""

from __future__ import annotations

import re
import sys
from typing import Any

from tqdm import tqdm

from velocitune_core.train import events

NOTHING_TO_DO = re.compile(r"not compiled(?!.* there is no )")  # neither a pause to explain, nor a compiler to install
COLUMNS = 100  # of a line in a log
SECONDS_BETWEEN_LINES = 15.0  # when the output is a log file and not a terminal


_notes_shown: set[str] = set()  # on models, in this process, which may show many runs of one


def bar(**options: Any) -> tqdm:
    """Return a progress bar on standard error; in a log, each of its states is a plain line."""
    if sys.stderr.isatty():
        return _TerminalBar(**options, dynamic_ncols=True, mininterval=0.5, maxinterval=60)
    return _LogBar(**options, ncols=COLUMNS, mininterval=SECONDS_BETWEEN_LINES, maxinterval=60)


class _TerminalBar(tqdm):
    """A bar that, once closed, leaves the cursor at the beginning of a line."""

    def close(self) -> None:
        shown, below = not self.disable, bool(self.pos)
        super().close()
        if shown and below:  # tqdm clears a bar below another with spaces, and stays behind them
            sys.stderr.write("\r")
            sys.stderr.flush()


class _LogBar(tqdm):
    """Lines every SECONDS_BETWEEN_LINES and at the end, without carriage returns, of which none is cleared."""

    _shown: float | None = None  # what the last line counted

    def __init__(self, **options: Any) -> None:
        lines: Any = _Lines()
        super().__init__(**options, file=lines, delay=1e-3)  # no line before the first state

    def close(self) -> None:
        self.delay = 0  # shows the last state, also of a run that was shorter than the time between lines
        if self._shown == self.n:
            self.leave = False  # it is shown already
        super().close()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line, whatever the position is among other bars: a log has no line above, and is of any height."""
        if msg is None:
            self._shown = self.n
        super().display(msg, 0)

    def moveto(self, n: int) -> None:
        """Stay: a log has no line above."""


class _Lines:
    """Standard error, by lines."""

    def write(self, text: str) -> None:
        if state := text.strip("\r\n "):
            sys.stderr.write(f"{state}\n")

    def flush(self) -> None:
        sys.stderr.flush()


class ProgressBar:
    """Listener that shows steps, loss and speed on the terminal; in a log file, a line every 15 seconds.

    Args:
        leave: whether the bar stays when the run has ended.
    """

    def __init__(self, leave: bool = True) -> None:
        self._leave = leave
        self._bar: tqdm | None = None

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Started():
                self._start(event)
            case events.EvaluationStarted():
                self._start_evaluation(event)
            case events.Measured():
                self._advance_to(event.tokens)
            case events.Stepped():
                self._advance(event)
            case events.Warned():
                if not event.of_model or event.message not in _notes_shown:
                    self._write(event.message)
                if event.of_model:
                    _notes_shown.add(event.message)
            case events.Overfitted():
                for message in event.messages:
                    self._write(message)
            case events.Finished():
                self._finish(event)

    def close(self) -> None:
        """Remove the bar, if one is shown."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _start(self, event: events.Started) -> None:
        if event.resumed_from is not None:
            self._write(
                f"{event.name}: resuming from the checkpoint at step {event.resumed_from} of {event.total_steps}"
            )
        if event.compilation and not NOTHING_TO_DO.match(event.compilation):
            self._write(f"{event.name}: {event.compilation}")
        self._show(event.name, event.total_steps, event.step, "step")

    def _start_evaluation(self, event: events.EvaluationStarted) -> None:
        if event.step:
            self._write(f"{event.name}: {event.step} of {event.rows} sequences were measured before")
        self._show(event.name, event.tokens, event.measured_tokens, "token")

    def _show(self, name: str, total: int, initial: int, unit: str) -> None:
        self.close()
        self._bar = bar(
            total=total, initial=initial, desc=name, leave=self._leave, unit=unit, unit_scale=unit == "token"
        )

    def _advance(self, event: events.Stepped) -> None:
        if self._bar is not None:
            postfix = f"loss {event.loss:.3f}, {event.tokens_per_second:,.0f} tokens/s"
            self._bar.set_postfix_str(postfix, refresh=False)
            self._advance_to(event.step)

    def _advance_to(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def _finish(self, event: events.Finished) -> None:
        if self._bar is not None and self._bar.unit == "step":
            self._advance_to(event.step)
        self.close()

    def _write(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)
