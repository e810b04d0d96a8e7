"""Time transformers' Trainer on a GPU, for benchmarks/gpu.py: the same model, batch, arithmetic and optimizer."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from gpu_inputs import SHAPES, VOCABULARY, write_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from velocitune_core.model.io import load_model

WARM_UP = 2  # steps that are not counted: the first compiles


class StepTimes(TrainerCallback):
    """Record the time at the end of each step, once the GPU has finished it."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def trainer_speed(scratch: Path, miniature: bool, name: str, compiled: bool, micro: int) -> dict[str, Any]:
    """Time the steps of a Trainer: batches of 32 × 2,048 tokens under bfloat16 autocast, with fused AdamW."""
    batch, length, steps = (4, 32, 2) if miniature else (32, 2048, 8)
    micro = min(micro, batch)
    shape = SHAPES["miniature" if miniature else name]
    write_model(scratch / "model", shape, length)
    generator = torch.Generator().manual_seed(0)
    size = (batch * (steps + WARM_UP), length)
    rows = torch.randint(2, shape.get("vocab_size", VOCABULARY), size, generator=generator)
    step_times = StepTimes()
    gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(scratch / "output"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        max_steps=steps + WARM_UP,
        learning_rate=1e-4,
        weight_decay=0.1,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=True,
        torch_compile=compiled,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not gpu,
    )
    examples: Any = [{"input_ids": row, "labels": row} for row in rows]
    model = load_model(str(scratch / "model"))
    Trainer(model, arguments, train_dataset=examples, callbacks=[step_times]).train()
    times = step_times.times[WARM_UP - 1 :]
    seconds = statistics.median(later - earlier for earlier, later in itertools.pairwise(times))
    return {
        "model": name,
        "compile": compiled,
        "micro-batch": micro,
        "tokens/s": batch * length / seconds,
        "peak GB": torch.cuda.max_memory_allocated() / 1e9 if gpu else 0.0,
    }
