"""Estimate a 7 B model and 100 G tokens on 64 GPUs: `python benchmarks/cluster.py`, quoted in docs/SCALING.md.

Arithmetic only, not run on GPUs. Assumptions are marked below; sizes of states and events are measured on the real
classes with K domains.
"""

from __future__ import annotations

import json

import numpy as np
from rich.console import Console
from rich.table import Table

from velocitune_core.config import LOGITS_AT_ONCE_ON_GPU
from velocitune_core.mixture import DomainSampler
from velocitune_core.plan.cost import (
    ModelShape,
    Run,
    Stage,
    checkpoint_bytes,
    cluster_seconds,
    estimate_cost,
    flops_per_token,
    model_bytes,
    token_bytes,
)
from velocitune_core.plan.memory import Setting, memory_of
from velocitune_core.strategies import Observation, make_strategy
from velocitune_core.train.events import Evaluated, Reweighted, Stepped
from velocitune_core.train.history import History

LLAMA_7B = ModelShape(6_738_415_616, 32, 4096, 11_008, 32, 32, 128, 32_000, tied=False)
TOKENS, LENGTH, BATCH = 100 * 10**9, 4096, 1024
DEVICES, DEVICE_BYTES = 64, 80 * 10**9
PEAK_FLOPS = 989e12  # per second, of an H100 SXM in bfloat16 without sparsity, by its data sheet; ASSUMED
UTILISATION = 0.4  # of that peak (MFU); ASSUMED
DISK_BYTES_PER_SECOND = 2e9  # from rank 0 to a shared file system; ASSUMED
EVERY, HELD_OUT, LOG_EVERY = 32, 10, 6  # params.yaml: evaluation.every_steps, data.held_out_sequences, log_every_steps
FRACTIONS = {"the default": (0.08, 0.12, 0.2, 0.6), "shorter": (0.02, 0.04, 0.08)}


def main() -> None:
    console = Console(highlight=False, width=130)
    steps = TOKENS // (BATCH * LENGTH)
    console.print(memory_table())
    for line in [*time_lines(steps), *checkpoint_lines(steps), *domain_lines(steps)]:
        console.print(line, soft_wrap=True)


def memory_table() -> Table:
    table = Table(
        "processes", "micro-batch", "checkpointing", "steady GB", "activations, loss GB", "peak GB", "of 80 GB"
    )
    for processes, micro, checkpointing in [
        (1, 1, True),
        (8, 1, False),
        (8, 1, True),
        (64, 1, False),
        (64, 2, False),
        (64, 1, True),
        (64, 8, True),
    ]:
        setting = Setting(
            LENGTH,
            BATCH,
            micro,
            1,
            processes,
            bfloat16=True,
            activation_checkpointing=checkpointing,
            logits_at_once=LOGITS_AT_ONCE_ON_GPU,
        )
        found = memory_of(LLAMA_7B, setting)
        sizes = (found.steady, found.activations + found.logits, found.peak)
        table.add_row(
            str(processes),
            str(micro),
            "yes" if checkpointing else "no",
            *(f"{each / 1e9:.1f}" for each in sizes),
            f"{found.peak / DEVICE_BYTES:.0%}",
        )
    return table


def time_lines(steps: int) -> list[str]:
    per_token = flops_per_token(LLAMA_7B, LENGTH)
    flops = steps * BATCH * LENGTH * per_token
    seconds = cluster_seconds(flops, DEVICES, PEAK_FLOPS, UTILISATION)
    lines = [
        f"{steps:,} steps of {BATCH * LENGTH:,} tokens; {per_token:.3e} FLOPs a token, {flops:.2e} in all",
        f"at {UTILISATION:.0%} of {PEAK_FLOPS:.3g} FLOPs a second and device: {steps * BATCH * LENGTH / seconds:,.0f} "
        f"tokens a second, {seconds / steps:.1f} s a step, {seconds / 86_400:.2f} days",
    ]
    for name, fractions in FRACTIONS.items():
        alone = cluster_seconds(max(fractions) * flops, 1, PEAK_FLOPS, UTILISATION)
        lines.append(
            f"proxies of {name} {fractions}: {sum(fractions):.0%} of the main run's FLOPs; the longest would take "
            f"{alone / 86_400:.1f} days on one device, {alone / DEVICES / 3600:.1f} h on all of them"
        )
    return lines


def checkpoint_lines(steps: int) -> list[str]:
    saved = checkpoint_bytes(LLAMA_7B)
    seconds = saved / DISK_BYTES_PER_SECOND
    step = cluster_seconds(BATCH * LENGTH * flops_per_token(LLAMA_7B, LENGTH), DEVICES, PEAK_FLOPS, UTILISATION)
    shares = ", ".join(f"every {every} steps {seconds / (every * step):.1%}" for every in (50, 500, 1000))
    return [
        f"a checkpoint: {saved / 1e9:.1f} GB, {seconds:.0f} s at {DISK_BYTES_PER_SECOND / 1e9:.0f} GB/s ({shares} of "
        f"the time, if training waited for it); each process copies {saved / DEVICES / 1e9:.1f} GB of it",
        f"starting and ending: the main process holds the model in host memory, {model_bytes(LLAMA_7B) / 1e9:,.0f} GB",
        f"packed tokens: {TOKENS * token_bytes(LLAMA_7B.vocabulary_size) / 1e9:,.0f} GB",
    ]


def domain_lines(steps: int) -> list[str]:
    lines = []
    for domains in (7, 1000):
        run = Run("train", steps, BATCH, LENGTH, steps // EVERY, domains * HELD_OUT)
        (cost,) = estimate_cost([Stage("train", (run,))], LLAMA_7B, [None])
        state = state_bytes(domains)
        lines.append(
            f"K = {domains}: evaluating {domains * HELD_OUT:,} sequences every {EVERY} steps adds "
            f"{cost.evaluation_flops / cost.training_flops:.2%} to the FLOPs; state of the sampler "
            f"{state['sampler']:,} bytes, of velocitune {state['strategy']:,}, of the history "
            f"{state['history']:,} an evaluation, "
            f"{state['history'] * (steps // EVERY) / 1e6:,.0f} MB at the end and in every checkpoint; events "
            f"{state['logged']:,} bytes when logged, {state['evaluated']:,} when evaluated, "
            f"{(state['logged'] * (steps // LOG_EVERY) + state['evaluated'] * (steps // EVERY)) / 1e6:,.0f} MB in all"
        )
    return lines


def state_bytes(count: int) -> dict[str, int]:
    """Return the bytes of states in a checkpoint and of lines of the event file, as JSON."""
    random = np.random.default_rng(0)
    names = [f"domain-{number}" for number in range(count)]

    def values(low: float, high: float) -> dict[str, float]:
        return dict(zip(names, random.uniform(low, high, count).tolist(), strict=True))

    sampler = DomainSampler(dict.fromkeys(names, 10**6), seed=1, batch_size=BATCH)
    strategy = make_strategy(
        "velocitune", initial_weights=values(0.5, 1), initial_loss=values(3, 4), target_loss=values(1, 2)
    )
    history = History(names, strategy.weights)
    start = len(json.dumps(history.state_dict()))
    for _ in range(10):
        sampler.next_batch(strategy.weights)
    losses = values(2, 3)
    weights = strategy.update(Observation(step=10, total_steps=100, steps_since_update=10, losses=losses))
    history.add_losses(10, 10, losses)
    point = history.add_weights(10, 10, weights, strategy.velocity)
    tokens = dict(zip(names, random.integers(10**9, size=count).tolist(), strict=True))
    stepped = Stepped(
        step=10,
        tokens=10,
        loss=2.0,
        learning_rate=1e-3,
        gradient_norm=1.0,
        tokens_per_second=1e5,
        domain_tokens=tokens,
        domain_epochs=values(0, 1),
    )
    evaluated = Evaluated(step=10, tokens=10, losses=losses, seconds=1.0)
    reweighted = Reweighted(**point.model_dump(), seconds=0.1)
    return {
        "sampler": len(json.dumps(sampler.state_dict())),
        "strategy": len(json.dumps(strategy.state_dict())),
        "history": len(json.dumps(history.state_dict())) - start,
        "logged": len(stepped.model_dump_json()),
        "evaluated": len(evaluated.model_dump_json()) + len(reweighted.model_dump_json()),
    }


if __name__ == "__main__":
    main()
