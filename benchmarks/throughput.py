"""Steps per second of processor time against transformers' Trainer, side by side: `python benchmarks/throughput.py`.

Same model, batch and optimizer; this program and Trainer, each as it is and compiled (`execution.compile: always`,
`torch_compile=True`), alternate in one process, a few steps each after one that is not counted (its caches are cold).
Times are of the processor, over all threads, and every ratio is of adjacent turns, so that a busy machine affects all
alike. Model FLOPs utilisation is 6 · parameters · tokens per second (Kaplan et al., 2020; attention left out) over the
FLOP/s of one large matrix product on the same machine. TORCHINDUCTOR_CACHE_DIR shares compiled code between starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import Trainer, TrainerCallback, TrainingArguments

from velocitune_core.config import Base, Execution, Optimizer, Training
from velocitune_core.mixture import DomainSampler
from velocitune_core.model.build import build_llama, train_tokenizer
from velocitune_core.model.io import load_model, save_model
from velocitune_core.model.modules import count_parameters
from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.train.learner import Learner

LENGTH, BATCH, DOMAINS, ROWS, VOCABULARY = 256, 16, 7, 400, 1024
SHAPES = {
    "default": Base.model_construct(hidden_size=96, intermediate_size=256, layers=4, heads=3),
    "30 M": Base.model_construct(hidden_size=512, intermediate_size=1536, layers=8, heads=8),
}
LEARNING_RATE = 1e-3
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Setting:
    """What both programs are given."""

    batch: int
    precision: Precision  # of matrix products; Trainer's `bf16`


def write_model(shape: Base, folder: Path) -> None:
    """Write a randomly initialised Llama and its tokenizer."""
    tokenizer = train_tokenizer(map(str, range(30_000)), VOCABULARY)
    save_model(build_llama(shape, tokenizer, LENGTH, seed=1), tokenizer, folder)


class Ours:
    """Sampler and learner, used as the training loop does; the first step of a turn is not counted."""

    def __init__(self, folder: Path, rows: np.ndarray, work: Setting, compiled: bool) -> None:
        optimizer = Optimizer(learning_rate=LEARNING_RATE)
        settings = Training(batch_sequences=work.batch, optimizer=optimizer, precision=work.precision)
        execution = Execution(compile="always" if compiled else "never")
        self.learner = Learner(str(folder), settings, execution, SINGLE_RANK)
        self.sampler = DomainSampler({f"d{number}": ROWS for number in range(DOMAINS)}, seed=1, batch_size=work.batch)
        self.rows, self.weights = rows, np.full(DOMAINS, 1 / DOMAINS)

    def seconds(self, steps: int) -> float:
        """Return the processor seconds of so many steps."""
        start = 0.0
        for step in range(steps + 1):
            if step == 1:
                start = time.process_time()
            domains, indices = self.sampler.next_batch(self.weights)
            sequences = torch.from_numpy(self.rows[domains, indices].astype(np.int64))
            self.learner.gradients(sequences, domains, DOMAINS)
            self.learner.apply(LEARNING_RATE)
        return time.process_time() - start


class StepTimes(TrainerCallback):
    """Callback that records the time at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.process_time())


class Theirs:
    """A Trainer, made anew for each turn; its first step is not counted.

    Its model is new too: Trainer compiles no model that another Trainer had compiled, and the turn would be uncompiled.
    """

    def __init__(self, folder: Path, rows: np.ndarray, work: Setting, compiled: bool) -> None:
        self.folder, self.work, self.compiled = folder, work, compiled
        flat = rows.reshape(-1, LENGTH).astype(np.int64)
        self.examples = [{"input_ids": row, "labels": row} for row in torch.from_numpy(flat)]

    def seconds(self, steps: int) -> float:
        """Return the processor seconds of so many steps."""
        step_times = StepTimes()
        arguments = TrainingArguments(
            output_dir=str(self.folder / "output"),
            per_device_train_batch_size=self.work.batch,
            bf16=self.work.precision == "bfloat16",
            max_steps=steps + 1,
            learning_rate=LEARNING_RATE,
            weight_decay=0.1,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            torch_compile=self.compiled,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        model = load_model(str(self.folder))
        Trainer(model, arguments, train_dataset=self.examples, callbacks=[step_times]).train()
        return step_times.times[-1] - step_times.times[0]


def peak_flops(precision: Precision) -> float:
    """Return the FLOP/s of a matrix product large enough to be compute bound, the best of eight."""
    size, dtype = 2048, torch.bfloat16 if precision == "bfloat16" else torch.float32
    one, other = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)

    def once() -> float:
        start = time.process_time()
        one @ other
        return 2 * size**3 / (time.process_time() - start)

    return max(once() for _ in range(8))


CANDIDATES: dict[str, tuple[type[Ours | Theirs], bool]] = {
    "this program": (Ours, False),
    "Trainer": (Theirs, False),
    "this program, compiled": (Ours, True),
    "Trainer, compiled": (Theirs, True),
}


def measured(shape: Base, work: Setting, steps: int, turns: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the figures of each candidate, in one process."""
    rows = np.random.default_rng(0).integers(VOCABULARY, size=(DOMAINS, ROWS, LENGTH), dtype=np.uint16)
    with tempfile.TemporaryDirectory() as name:
        write_model(shape, Path(name))
        made, first = {}, {}
        for each in names:
            kind, compiled = CANDIDATES[each]
            start = time.perf_counter()
            made[each] = kind(Path(name), rows, work, compiled)
            made[each].seconds(0)
            first[each] = time.perf_counter() - start
        seconds: dict[str, list[float]] = {each: [] for each in names}
        for _ in range(turns):
            for each in names:
                seconds[each].append(made[each].seconds(steps) / steps)
        parameters, peak = count_parameters(load_model(name)), peak_flops(work.precision)
    for each in names:
        pairs = zip(seconds["Trainer"], seconds[each], strict=True)
        tokens = work.batch * LENGTH / statistics.median(seconds[each])
        yield {
            "parameters": parameters,
            "batch": work.batch,
            "precision": work.precision,
            "who": each,
            "tokens_per_processor_second": tokens,
            "trainer_over_this": statistics.median(theirs / ours for theirs, ours in pairs),
            "utilisation": 6 * parameters * tokens / peak,
            "first_step_seconds": first[each],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="per turn (default 6)")
    parser.add_argument("--turns", type=int, default=5, help="of each (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--batch", type=int, default=BATCH, help=f"sequences of {LENGTH} tokens (default {BATCH})")
    parser.add_argument("--precision", default="float32", choices=get_args(Precision), help="(default float32)")
    parser.add_argument("--json", type=Path, default=Path("throughput.json"), help="where to write all figures")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work = Setting(arguments.batch, arguments.precision)
    title = f"{arguments.threads} threads, {arguments.precision}, median of {arguments.turns} turns"
    columns = ("model", "batch", "", "tokens per processor s", "Trainer's time over its", "FLOPs used", "first step, s")
    table, figures = Table(*columns, title=title), []
    for model in arguments.models:
        for row in measured(SHAPES[model], work, arguments.steps, arguments.turns, list(CANDIDATES)):
            figures.append({"model": model, **row})
            table.add_row(
                f"{row['parameters'] / 1e6:.1f} M",
                str(row["batch"]),
                row["who"],
                f"{row['tokens_per_processor_second']:,.0f}",
                f"{row['trainer_over_this']:.2f}",
                f"{row['utilisation']:.0%}",
                f"{row['first_step_seconds']:.0f}",
            )
    Console().print(table)
    arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
