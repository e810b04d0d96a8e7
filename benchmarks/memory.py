"""Memory that velocitune_core.plan.memory predicts against memory that is used: `python benchmarks/memory.py`.

A Llama of 30 million parameters is trained for two steps in float32 on the CPU, in a new process per line. Two peaks
are measured: of live tensors, as torch's profiler counts them, and of the process's resident size, less its size before
the model was built, which includes the C allocator's gaps and the kernels' scratch. Needs Linux, for /proc. What
autograd keeps for the backward pass is counted too, in float32 and with a model in bfloat16.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from rich.console import Console
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.plan.cost import ModelShape
from velocitune_core.plan.memory import Setting, memory_of

LENGTH, VOCABULARY, STEPS = 256, 8192, 2
CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=512,
    intermediate_size=1408,
    num_hidden_layers=8,
    num_attention_heads=8,
    max_position_embeddings=LENGTH,
    tie_word_embeddings=True,
)


@dataclass(frozen=True)
class Line:
    micro_batch: int  # sequences
    micro_batches: int = 1
    bfloat16: bool = False
    checkpointing: bool = False

    @property
    def setting(self) -> Setting:
        return Setting(
            sequence_length=LENGTH,
            batch_sequences=self.micro_batch * self.micro_batches,
            micro_batch_sequences=self.micro_batch,
            evaluation_sequences=1,
            bfloat16=self.bfloat16,
            activation_checkpointing=self.checkpointing,
        )


LINES = [Line(2), Line(8), Line(2, 4), Line(2, checkpointing=True), Line(8, checkpointing=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--line", type=int, help="train that line in this process and print both peaks in bytes")
    number = parser.parse_args().line
    if number is not None:
        print(resident_peak(LINES[number]), live_peak(LINES[number]))
        return
    parameters = sum(each.numel() for each in LlamaForCausalLM(CONFIG).parameters())
    shape = ModelShape(parameters, 8, 512, 1408, 8, 8, 64, VOCABULARY, tied=True)
    console = Console()
    console.print("micro-batch of batch: predicted MB; tensors MB, resident MB, each over predicted")
    for number, line in enumerate(LINES):  # printed one by one: each takes up to two minutes
        predicted, (resident_bytes, live) = memory_of(shape, line.setting).peak, in_a_process(number)
        console.print(
            f"{line.micro_batch} of {line.setting.batch_sequences}{', checkpointing' if line.checkpointing else ''}: "
            f"{predicted / 1e6:,.0f}; {live / 1e6:,.0f}, {resident_bytes / 1e6:,.0f}, "
            f"{live / predicted:.3f}, {resident_bytes / predicted:.2f}"
        )
    for bfloat16 in (False, True):
        kept = memory_of(shape, Line(4, bfloat16=bfloat16).setting)
        loss = 4 * 4 * LENGTH * VOCABULARY  # of its 12 bytes per logit, those kept for the backward pass
        predicted = kept.activations + loss
        found = kept_by_autograd(Line(4, bfloat16=bfloat16))
        console.print(
            f"kept by autograd, {'bfloat16' if bfloat16 else 'float32'}: {found / 1e6:,.1f} MB, "
            f"predicted {predicted / 1e6:,.1f} MB"
        )


def in_a_process(number: int) -> tuple[int, int]:
    """Run a line in a new process; return its peak bytes, resident and of tensors."""
    command = [sys.executable, __file__, "--line", str(number)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return int(printed[0]), int(printed[1])


def resident_peak(line: Line) -> int:
    """Return the peak of two steps above what the libraries take; a tiny model trained first makes them load it."""
    tiny = {**CONFIG.to_dict(), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 8}
    train(LlamaForCausalLM(LlamaConfig(**tiny)), Line(1, checkpointing=line.checkpointing))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # peak := now
    before = resident("VmRSS")
    train(LlamaForCausalLM(CONFIG), line)
    return resident("VmHWM") - before


def live_peak(line: Line) -> int:
    """Return the peak of live tensors over two steps: the model's, and the running sum of allocations and frees."""
    model = LlamaForCausalLM(CONFIG)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        train(model, line)
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    changes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(changes)) + sum(each.nbytes for each in model.parameters())


def train(model: LlamaForCausalLM, line: Line) -> None:
    if line.checkpointing:
        model.activation_checkpointing_enable()
        model.train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(STEPS):
        for _ in range(line.micro_batches):
            tokens = torch.randint(VOCABULARY, (line.micro_batch, LENGTH))
            NextTokenLoss(model)(tokens).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def kept_by_autograd(line: Line) -> int:
    """Return the bytes of distinct storages that autograd keeps for the backward pass, without the parameters."""
    model = LlamaForCausalLM(CONFIG)
    if line.bfloat16:  # as FSDP casts it for a pass
        model.bfloat16()
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(record, lambda tensor: tensor):
        nats = NextTokenLoss(model)(torch.randint(VOCABULARY, (line.micro_batch, LENGTH)))
    assert nats.requires_grad
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in weights)


def resident(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
