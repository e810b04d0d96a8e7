"""Training speed against transformers' Trainer, same model, batch and optimizer: `python benchmarks/throughput.py`.

The two alternate, a few steps each after one that is not counted (its caches are cold), and the ratio is of adjacent
turns, so that a busy machine affects both equally. Model FLOPs utilisation is 6 · parameters · tokens per second
(Kaplan et al., 2020; attention left out) over the FLOP/s of one large matrix product on the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

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


def write_model(shape: Base, folder: Path) -> None:
    """Write a randomly initialised Llama and its tokenizer."""
    tokenizer = train_tokenizer(map(str, range(30_000)), VOCABULARY)
    save_model(build_llama(shape, tokenizer, LENGTH, seed=1), tokenizer, folder)


class Ours:
    """Sampler and learner, used as the training loop does; the first step of a turn is not counted."""

    def __init__(self, folder: Path, rows: np.ndarray) -> None:
        optimizer = Optimizer(learning_rate=LEARNING_RATE)
        settings = Training(batch_sequences=BATCH, optimizer=optimizer, precision="float32")
        self.learner = Learner(str(folder), settings, Execution(), SINGLE_RANK)
        self.sampler = DomainSampler({f"d{number}": ROWS for number in range(DOMAINS)}, seed=1, batch_size=BATCH)
        self.rows, self.weights = rows, np.full(DOMAINS, 1 / DOMAINS)

    def seconds(self, steps: int) -> float:
        """Return the seconds of so many steps."""
        start = 0.0
        for step in range(steps + 1):
            if step == 1:
                start = time.perf_counter()
            domains, indices = self.sampler.next_batch(self.weights)
            sequences = torch.from_numpy(self.rows[domains, indices].astype(np.int64))
            self.learner.gradients(sequences, domains, DOMAINS)
            self.learner.apply(LEARNING_RATE)
        return time.perf_counter() - start


class StepTimes(TrainerCallback):
    """Callback that records the time at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


class Theirs:
    """A Trainer, made anew for each turn; its first step is not counted."""

    def __init__(self, folder: Path, rows: np.ndarray, output: Path) -> None:
        self.model: PreTrainedModel = load_model(str(folder))
        self.output = output
        flat = rows.reshape(-1, LENGTH).astype(np.int64)
        self.examples = [{"input_ids": row, "labels": row} for row in torch.from_numpy(flat)]

    def seconds(self, steps: int) -> float:
        """Return the seconds of so many steps."""
        step_times = StepTimes()
        arguments = TrainingArguments(
            output_dir=str(self.output),
            per_device_train_batch_size=BATCH,
            max_steps=steps + 1,
            learning_rate=LEARNING_RATE,
            weight_decay=0.1,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        Trainer(self.model, arguments, train_dataset=self.examples, callbacks=[step_times]).train()
        return step_times.times[-1] - step_times.times[0]


def peak_flops() -> float:
    """Return the FLOP/s of a matrix product large enough to be compute bound, the best of eight."""
    size = 2048
    one, other = torch.randn(size, size), torch.randn(size, size)

    def once() -> float:
        start = time.perf_counter()
        one @ other
        return 2 * size**3 / (time.perf_counter() - start)

    return max(once() for _ in range(8))


def measured(shape: Base, steps: int, turns: int) -> Iterator[str]:
    """Yield the cells of a row of the table."""
    rows = np.random.default_rng(0).integers(VOCABULARY, size=(DOMAINS, ROWS, LENGTH), dtype=np.uint16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(shape, folder / "model")
        ours, theirs = Ours(folder / "model", rows), Theirs(folder / "model", rows, folder / "output")
        parameters = count_parameters(theirs.model)
        pairs = [(ours.seconds(steps), theirs.seconds(steps)) for _ in range(turns)]
        peak = peak_flops()
    tokens = steps * BATCH * LENGTH
    mine, other = (tokens / statistics.median(each) for each in zip(*pairs, strict=True))
    yield f"{parameters / 1e6:.1f} M"
    yield f"{mine:,.0f}"
    yield f"{other:,.0f}"
    yield f"{statistics.median(two / one for one, two in pairs):.2f}"
    yield f"{6 * parameters * mine / peak:.0%} of {peak / 1e9:,.0f} GFLOP/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="per turn (default 6)")
    parser.add_argument("--turns", type=int, default=5, help="of each (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (default all cores)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    title = f"{arguments.threads} threads, float32, {BATCH} × {LENGTH} tokens a step, median of {arguments.turns} turns"
    table = Table("model", "parameters", "tokens/s", "Trainer", "ratio", "model FLOPs utilisation", title=title)
    for name, shape in SHAPES.items():
        steps = arguments.steps if name == "default" else max(1, arguments.steps // 6)
        table.add_row(name, *measured(shape, steps, arguments.turns))
    Console().print(table)


if __name__ == "__main__":
    main()
