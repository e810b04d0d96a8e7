"""Memory that velocitune_core.plan.memory predicts against memory that is allocated: `python benchmarks/memory.py`.

A Llama of 30 million parameters is trained for two steps on the CPU, in a process of its own per line. Two peaks are
read: of the tensors that are alive, as torch's profiler counts them, and of the process's resident size, less what it
held before the model was built, which adds the C allocator's gaps and the kernels' scratch. Needs Linux, for /proc.
What autograd keeps is counted too, in bfloat16 as well, which most CPUs only imitate.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
from contextlib import nullcontext
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
    parser.add_argument("--line", type=int, help="train that line in this process and print its bytes")
    number = parser.parse_args().line
    if number is not None:
        print(resident_peak(LINES[number]), live_peak(LINES[number]))
        return
    parameters = sum(each.numel() for each in LlamaForCausalLM(CONFIG).parameters())
    shape = ModelShape(parameters, 8, 512, 1408, 8, 8, 64, VOCABULARY, tied=True)
    console = Console()
    console.print("micro-batch of batch: predicted MB; tensors MB, resident MB, each over predicted")
    for number, line in enumerate(LINES):  # as they come: each takes up to a minute or two
        predicted, (resident_bytes, live) = memory_of(shape, line.setting).peak, in_a_process(number)
        console.print(
            f"{line.micro_batch} of {line.setting.batch_sequences}{', checkpointing' if line.checkpointing else ''}: "
            f"{predicted / 1e6:,.0f}; {live / 1e6:,.0f}, {resident_bytes / 1e6:,.0f}, "
            f"{live / predicted:.3f}, {resident_bytes / predicted:.2f}"
        )
    for bfloat16 in (False, True):
        kept = memory_of(shape, Line(4, bfloat16=bfloat16).setting)
        loss = 4 * 4 * LENGTH * VOCABULARY  # of its 12 bytes per word, those that wait for the backward pass
        predicted = kept.activations + kept.cast_parameters + loss
        found = kept_by_autograd(Line(4, bfloat16=bfloat16))
        console.print(
            f"kept by autograd, {'bfloat16' if bfloat16 else 'float32'}: {found / 1e6:,.1f} MB, "
            f"predicted {predicted / 1e6:,.1f} MB"
        )


def in_a_process(number: int) -> tuple[int, int]:
    """Peak bytes, resident and of tensors."""
    command = [sys.executable, __file__, "--line", str(number)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    told = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return int(told[0]), int(told[1])


def resident_peak(line: Line) -> int:
    """Of two steps, above what the libraries hold; a training of a tiny model has loaded all that they load."""
    tiny = {**CONFIG.to_dict(), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 8}
    train(LlamaForCausalLM(LlamaConfig(**tiny)), Line(1, bfloat16=line.bfloat16, checkpointing=line.checkpointing))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # peak := now
    before = resident("VmRSS")
    train(LlamaForCausalLM(CONFIG), line)
    return resident("VmHWM") - before


def live_peak(line: Line) -> int:
    """Of tensors, over two steps: the model's, and the running sum of what torch says it took and gave back."""
    model = LlamaForCausalLM(CONFIG)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        train(model, line)
    assert told.profiler is not None and told.profiler.kineto_results is not None
    changes = [event.nbytes() for event in told.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(changes)) + sum(each.nbytes for each in model.parameters())


def train(model: LlamaForCausalLM, line: Line) -> None:
    if line.checkpointing:
        model.activation_checkpointing_enable()
        model.train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(STEPS):
        for _ in range(line.micro_batches):
            tokens = torch.randint(VOCABULARY, (line.micro_batch, LENGTH))
            with torch.autocast("cpu", dtype=torch.bfloat16) if line.bfloat16 else nullcontext():
                loss = NextTokenLoss(model)(tokens).sum()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def kept_by_autograd(line: Line) -> int:
    """Bytes of distinct storages that wait for the backward pass, without the weights themselves."""
    model = LlamaForCausalLM(CONFIG)
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    cast = torch.autocast("cpu", dtype=torch.bfloat16) if line.bfloat16 else nullcontext()
    with saved_tensors_hooks(note, lambda tensor: tensor), cast:
        nats = NextTokenLoss(model)(torch.randint(VOCABULARY, (line.micro_batch, LENGTH)))
    assert nats.requires_grad
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in weights)


def resident(field: str) -> int:
    """Bytes, of a field of /proc/self/status."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
