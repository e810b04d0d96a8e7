"""Memory that a plan predicts against the resident size of real runs: `python benchmarks/memory.py`.

Llamas of three sizes, each with and without activation checkpointing, sharded over two gloo processes with either way
of gathering, and compiled. What is predicted comes from a probe of a smaller run, with half the layers and half the
micro-batch, extrapolated as `python -m flows.plan` does. What is measured is the peak resident size (getrusage's
ru_maxrss) of the training program, started for a few steps with evaluations, checkpoints in the background and the
trained model's folder at the end; of two processes, the larger one's. Prints a table, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from velocitune_core.config import Base, Evaluation, Execution, Optimizer, StrategyConfig, Training
from velocitune_core.contracts import DomainFiles
from velocitune_core.files import file_sha256
from velocitune_core.plan.calibrate import calibrated, resident_of
from velocitune_core.plan.cost import ModelShape, with_layers
from velocitune_core.plan.memory import Setting, memory_of
from velocitune_core.plan.probe import Probe, ProbeResult
from velocitune_core.plan.resident import resident_bytes
from velocitune_core.train.job import TrainJob

LENGTH, VOCABULARY, DOMAINS, ROWS, HELD_OUT, STEPS = 256, 8192, 2, 64, 8, 6
LIMIT = 0.15


@dataclass(frozen=True)
class Size:
    """A model, and the sequences of its batch, in two micro-batches."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    batch: int

    def base(self, layers: int) -> Base:
        return Base.model_construct(
            hidden_size=self.hidden, intermediate_size=self.intermediate, layers=layers, heads=self.heads
        )

    def shape(self) -> ModelShape:
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.intermediate + 2 * self.hidden
        parameters = VOCABULARY * self.hidden + self.layers * layer + self.hidden
        return ModelShape(
            parameters,
            self.layers,
            self.hidden,
            self.intermediate,
            self.heads,
            self.heads,
            self.hidden // self.heads,
            VOCABULARY,
            tied=True,
        )


SIZES = (
    Size("small", 128, 384, 4, 4, 32),
    Size("medium", 320, 896, 6, 5, 16),
    Size("large", 512, 1408, 8, 8, 8),
)


@dataclass(frozen=True)
class How:
    """How the run of a size is computed."""

    checkpointing: bool = False
    processes: int = 1
    gather: Literal["auto", "layer", "step"] = "auto"
    compile: Literal["never", "always"] = "never"

    def described(self) -> str:
        parts = ["checkpointing"] * self.checkpointing + ["compiled"] * (self.compile == "always")
        return ", ".join([*parts, *([f"{self.processes} processes, per {self.gather}"] if self.processes > 1 else [])])


HOW = (
    How(),
    How(checkpointing=True),
    How(processes=2, gather="layer"),
    How(processes=2, gather="step"),
    How(compile="always"),
)


@dataclass(frozen=True)
class Row:
    size: str
    parameters: int
    micro_batch_sequences: int
    how: How
    tensors: int  # bytes, as all others: peak of live tensors and the copy, predicted
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("memory.json"), help="where to write all figures")
    parser.add_argument("--sizes", nargs="+", default=[size.name for size in SIZES])
    parser.add_argument("--only", default="", help="rows whose description contains this")
    arguments = parser.parse_args()
    rows = []
    for size in SIZES:
        if size.name in arguments.sizes:
            for how in HOW:
                if arguments.only in how.described():
                    with tempfile.TemporaryDirectory() as folder:
                        rows.append(row_of(size, how, Path(folder)))
                        print(rows[-1], file=sys.stderr, flush=True)  # each takes up to a minute
    table = Table("model", "micro-batch", "how", "tensors, MB", "predicted, MB", "measured, MB", "error")
    for row in rows:
        table.add_row(
            f"{row.parameters / 1e6:.1f} M",
            f"{row.micro_batch_sequences} × {LENGTH}",
            row.how.described(),
            *(f"{each / 1e6:,.0f}" for each in (row.tensors, row.predicted, row.measured)),
            f"{row.error:+.1%}",
        )
    Console().print(table)
    arguments.json.write_text(json.dumps([{**asdict(row), "error": row.error} for row in rows], indent=1))
    worst = max((abs(row.error) for row in rows if row.how.compile == "never"), default=0.0)
    print(f"largest error of uncompiled runs, which predictions are of: {worst:.1%}, limit {LIMIT:.0%}")
    sys.exit(worst > LIMIT)


def row_of(size: Size, how: How, folder: Path) -> Row:
    """Probe a smaller run, predict, run the real one."""
    micro = size.batch // 2 // how.processes
    execution = Execution(
        micro_batch_sequences=micro,
        evaluation_micro_batch_sequences=4,
        activation_checkpointing=how.checkpointing,
        gather=how.gather,
        compile=how.compile,
        checkpoint_every_steps=2,
        log_every_steps=1,
    )
    training = Training(batch_sequences=size.batch, optimizer=Optimizer(learning_rate=1e-3), precision="float32")
    setting = Setting(
        LENGTH,
        size.batch,
        micro,
        4,
        how.processes,
        activation_checkpointing=how.checkpointing,
        gather_per_step=how.gather == "step",
    )
    write_model(size.base(size.layers), folder / "whole")
    write_model(size.base(size.layers // 2), folder / "half")
    half = replace(setting, batch_sequences=size.batch // 2, micro_batch_sequences=micro // 2)
    result = probed(half, training, execution, folder)
    shape, few = size.shape(), with_layers(size.shape(), size.layers // 2)
    known = replace(shape, measured=calibrated(few, half, result))
    memory = memory_of(known, setting)
    return Row(
        size.name,
        shape.parameters,
        micro,
        how,
        memory.peak + memory.copy,
        resident_bytes(resident_of(few, half, result, copied=True), known, setting),
        measured(training, execution, how.processes, folder),
    )


def write_model(base: Base, folder: Path) -> None:
    """Write a randomly initialised Llama with a tokenizer whose ids it has room for."""
    from transformers import LlamaForCausalLM

    from velocitune_core.model.build import llama_config, train_tokenizer
    from velocitune_core.model.io import save_model

    tokenizer = train_tokenizer(map(str, range(10_000)), 1024)
    save_model(LlamaForCausalLM(llama_config(base, LENGTH, VOCABULARY, 0)), tokenizer, folder)


def probed(setting: Setting, training: Training, execution: Execution, folder: Path) -> ProbeResult:
    """Run the program that a plan runs."""
    (folder / "probe").mkdir()
    probe = Probe(
        model=str(folder / "half"),
        training=training.model_copy(update={"batch_sequences": setting.batch_sequences}),
        execution=execution.model_copy(update={"micro_batch_sequences": setting.micro_batch_sequences}),
        sequence_length=LENGTH,
        vocabulary_size=VOCABULARY,
        evaluation_sequences=setting.evaluation_sequences,
        steps=3,
        seconds=60.0,
        saves=True,
        threads=1,
    )
    path = folder / "probe" / "probe.json"
    path.write_text(probe.model_dump_json())
    run("velocitune_core.plan.probe", path, setting.processes)
    return ProbeResult.model_validate_json((path.parent / "result.json").read_text())


def measured(training: Training, execution: Execution, processes: int, folder: Path) -> int:
    """Return the peak resident bytes of the training program, of the largest of its processes."""
    domains = {}
    for number in range(DOMAINS):
        files = []
        for split, rows in (("train", ROWS), ("held_out", HELD_OUT)):
            path = folder / f"{number}-{split}.npy"
            np.save(path, np.random.default_rng(number).integers(1000, size=(rows, LENGTH), dtype=np.uint16))
            files.append(path)
        train, held_out = files
        domains[f"domain-{number}"] = DomainFiles(
            train=str(train),
            held_out=str(held_out),
            train_sha256=file_sha256(train),
            held_out_sha256=file_sha256(held_out),
        )
    job = TrainJob(
        name="memory",
        output=str(folder / "run"),
        model=str(folder / "whole"),
        domains=domains,
        initial_domain_weights=dict.fromkeys(domains, 1 / DOMAINS),
        total_steps=STEPS,
        training=training,
        evaluation=Evaluation(every_steps=3),
        strategy=StrategyConfig(name="static"),
        execution=execution,
        threads=1,
    )
    path = folder / "job.json"
    path.write_text(job.model_dump_json())
    return run("velocitune_core.train", path, processes)


def run(module: str, argument: Path, processes: int) -> int:
    """Run a program to its end; return its peak resident bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [sys.executable, "-m", *(torchrun if processes > 1 else []), module, str(argument)]
    with (argument.parent / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)  # the largest of the process and of those that it waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit((argument.parent / "log.txt").read_text()[-2000:])
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
