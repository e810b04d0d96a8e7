"""Losses of a model without training it: the other kind of job of the training program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from velocitune_core.config import ConfigError
from velocitune_core.contracts import EvaluationResult, Questions
from velocitune_core.evaluation.bits_per_byte import check_vocabulary
from velocitune_core.evaluation.evaluation_job import EvaluationJob
from velocitune_core.evaluation.measured_sets import MeasuredRows, held_out_rows, question_rows
from velocitune_core.evaluation.scored_rows import row_nats
from velocitune_core.model.fits_data import position_limit
from velocitune_core.model.modules import count_parameters
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.parallel.agreement import PhaseError, together
from velocitune_core.parallel.ranks import Ranks
from velocitune_core.train import events
from velocitune_core.train.placement import loaded_loss
from velocitune_core.train.stop import Interrupted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EVENTS = "events.jsonl"


class Evaluator:
    """One evaluation, from its job to its result.

    Its state is the values of the rows measured so far, in their fixed order. Every pass logs its own, so an evaluation
    that was stopped or killed measures only what is missing, under any number of ranks.

    Args:
        job: what to measure, of which model, and how.
        ranks: this rank among those of the evaluation.
        listeners: called with every event, on the main rank only. One of them must write the job's event file, or a
            restart measures everything again.
        should_stop: called after every pass; once it returns True on any rank, `run` raises Interrupted.

    Raises ConfigError, ModelError, EvaluationError or DownstreamError for a job that cannot work.
    """

    def __init__(
        self,
        job: EvaluationJob,
        ranks: Ranks,
        listeners: Iterable[events.Listener] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._since = time.perf_counter()
        self.job, self.ranks, self.should_stop = job, ranks, should_stop
        self._listeners = list(listeners) if ranks.is_main else []
        self._window: int | None = None
        self._parameters = 0  # of those that can be trained
        # Compiling takes longer than most evaluations, so `auto` does not; nor does a training's own on a CPU.
        compiled = job.execution.compile == "always" and ranks.device.type == "cuda"
        self._loss = loaded_loss(
            job.model,
            job.precision,
            ranks,
            self._frozen,
            compiled=lambda _: compiled,
            document_start=job.document_start,
        ).eval()
        self._measured = self._read_sets(self._loss.model)
        self._tokens = np.cumsum([0, *(len(row.tokens) for row in self._measured.rows)])  # of the first n rows
        self._nats: list[float] = []  # of the rows measured so far
        self._earlier_seconds = 0.0

    def run(self) -> EvaluationResult:
        """Measure every row and return the result, which is also written to result.json.

        Raises Interrupted if it was stopped, EvaluationError for a loss that is not finite, and ConfigError for a
        folder that holds another evaluation.
        """
        done = self._resume()
        rows = self._measured.rows
        while done < len(rows):
            batch = rows[done : done + self._rows_of_pass(done)]
            self._add(row_nats(self._loss, batch, self.ranks))
            done += len(batch)
            if self.ranks.any(self.should_stop()) and done < len(rows):
                raise Interrupted(f"{self.job.name} stopped after sequence {done} of {len(rows)}; {self._saved()}")
        return self._finish()

    def _saved(self) -> str:
        """Return how much of what was measured is in the file of events, from which the next start goes on."""
        if not self.ranks.is_main:
            return "saved"
        kept, _ = measured_before(Path(self.job.output) / EVENTS, self.job, len(self._measured.rows))
        return "saved" if len(kept) == len(self._nats) else f"{len(kept)} of them saved"

    def _frozen(self, model: PreTrainedModel) -> PreTrainedModel:
        self._parameters = count_parameters(model)
        return model.requires_grad_(False)

    def _read_sets(self, model: PreTrainedModel) -> MeasuredRows:
        asked = self.job.questions
        if asked is None:
            return held_out_rows(self.job.held_out)
        tokenizer = load_tokenizer(self.job.model)
        embeddings: Any = model.get_input_embeddings()
        check_vocabulary(tokenizer, embeddings.weight.shape[0], self.job.model)
        limits = [asked.context_tokens, position_limit(model.config.to_dict())]
        self._window = min(each for each in limits if each is not None)
        return question_rows(Questions.read(Path(asked.path)), tokenizer, self._window)

    def _resume(self) -> int:
        """Take what earlier attempts measured; return the number of its rows, the same on every rank."""

        def read() -> None:
            before = measured_before(Path(self.job.output) / EVENTS, self.job, len(self._measured.rows))
            self._nats, self._earlier_seconds = before

        try:
            together(read if self.ranks.is_main else None, self.ranks)
        except PhaseError as error:
            raise ConfigError(str(error)) from None
        (done,) = self.ranks.broadcast_numbers([len(self._nats)])
        self._nats = self.ranks.broadcast(self._nats if self.ranks.is_main else np.zeros(done)).tolist()
        self._emit(
            events.EvaluationStarted(
                step=done,
                name=self.job.name,
                recipe=self.job.fingerprint(),
                rows=len(self._measured.rows),
                tokens=int(self._tokens[-1]),
                measured_tokens=int(self._tokens[done]),
                sets=self._measured.names,
                precision=self.job.precision,
                parameters=self._parameters,
                device=str(self.ranks.device),
                world_size=self.ranks.world_size,
            )
        )
        return done

    def _rows_of_pass(self, first: int) -> int:
        """Return the rows of a pass that begins with row `first`, over all ranks."""
        per_rank = self.job.execution.evaluation_micro_batch_sequences
        if self.job.questions is not None:
            per_rank = max(1, self.job.batch_tokens // len(self._measured.rows[first].tokens))
        return per_rank * self.ranks.world_size

    def _add(self, nats: list[float]) -> None:
        """Keep the values of the next rows, and log them."""
        first = len(self._nats)
        self._measured.check_finite(first, nats)
        self._nats += nats
        done = len(self._nats)
        tokens = int(self._tokens[done])
        self._emit(events.Measured(step=done, first=first, nats=nats, tokens=tokens, seconds=self._seconds))

    def _finish(self) -> EvaluationResult:
        result = EvaluationResult(
            name=self.job.name,
            recipe=self.job.fingerprint(),
            precision=self.job.precision,
            parameters=self._parameters,
            context_tokens=self._window,
            sets=self._measured.sums(self._nats),
            seconds=self._seconds,
        )
        losses = {name: each.loss for name, each in result.sets.items()}
        self._emit(events.Evaluated(step=len(self._nats), tokens=0, losses=losses, seconds=result.seconds))

        def write() -> None:  # the result last, as it makes the evaluation finished: no event is missing then
            self._emit(events.Finished(step=len(self._nats), seconds=result.seconds))
            result.write(Path(self.job.output) / "result.json")

        together(write if self.ranks.is_main else None, self.ranks)
        return result

    @property
    def _seconds(self) -> float:
        return self._earlier_seconds + time.perf_counter() - self._since

    def _emit(self, event: events.Event) -> None:
        for listener in self._listeners:
            listener(event)


def measured_before(path: Path, job: EvaluationJob, rows: int) -> tuple[list[float], float]:
    """Return the values of the first rows that an event file holds, and the seconds that measuring them took.

    Raises ConfigError if the file is of another recipe or number of rows, EventFileError if it cannot be read.
    """
    ours = job.fingerprint(), rows
    nats: list[float] = []
    seconds = 0.0
    for event in events.read_events(path):
        match event:
            case events.Started() | events.EvaluationStarted():
                if isinstance(event, events.Started) or (event.recipe, event.rows) != ours:
                    raise ConfigError(
                        f"{path}: {event.name} had another recipe or other data; give {job.name} an output folder of "
                        "its own"
                    )
            case events.Measured() if event.first == len(nats):
                nats += event.nats
                seconds = event.seconds
    return nats, seconds
