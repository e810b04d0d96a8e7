"""Estimate the memory of a run per device, in bytes, and settings that fit. Arithmetic only.

Parameters, gradients and AdamW's moments are float32 and, under FSDP2, the only tensors sharded over the processes.
Activations are what autograd keeps for a transformers Llama with scaled-dot-product attention, which stores no T × T
matrix. Per token and layer (d hidden, i intermediate, a = heads · head size, k = key-value heads · head size):

    float32    24·d + 8·a + 8·k + 16·i
    bfloat16   16·d + 4·a + 4·k +  8·i      (8·d of it: the inputs of both norms, in float32)

With activation checkpointing a layer keeps its input, 4·d or 2·d, and one layer at a time is computed again. The loss
takes 12 bytes per logit, of `logits_at_once` at most, as more are made in chunks. bfloat16 adds a copy of all weights
where one process has them all; under FSDP2 layers are gathered in bfloat16. `ModelShape.measured` scales what a pass
takes, as a probe of the model found it. A copy of parameters and moments, in host memory, is written as checkpoint.

These are sizes of tensors. What a CPU process takes beside them is in `resident`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from velocitune_core.config import LOGITS_AT_ONCE, ConfigError
from velocitune_core.plan.cost import FLOAT32_BYTES, MOMENTS, ModelShape

BFLOAT16_BYTES = 2
LOSS_BYTES = 12  # per logit: logits, a copy without the last position, log-probabilities; in both passes
SPARE = 0.1  # of a device, for its runtime and fragmentation; assumed, not measured
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class Setting:
    """The settings that the memory of a run depends on, beside the model."""

    sequence_length: int
    batch_sequences: int  # per step, over all ranks
    micro_batch_sequences: int  # per forward pass and process
    evaluation_sequences: int  # per forward pass and process
    processes: int = 1
    bfloat16: bool = False
    activation_checkpointing: bool = False
    reference: bool = False  # a reference model is held, too
    gather_per_step: bool = False  # several processes hold whole parameters and gradients within a step
    logits_at_once: int = LOGITS_AT_ONCE  # LOGITS_AT_ONCE_ON_GPU on a GPU


@dataclass(frozen=True)
class Memory:
    """Bytes per device. Not all are allocated at once: see `peak`."""

    parameters: int
    gradients: int
    moments: int
    reference: int
    gathered: int  # FSDP: unsharded parameters and gradients of the layers being computed
    whole: int  # parameters and gradients, where they are gathered once a step; 0 where per layer
    cast_parameters: int  # bfloat16 copies
    activations: int
    logits: int
    evaluation: int  # activations and logits of a held-out batch
    loading: int  # shards, and the unsharded layer or embedding that is being loaded
    copy: int  # parameters and moments while they are written, in host memory and not in `peak`
    accumulates: bool  # gradients of earlier micro-batches are held during the next

    @property
    def steady(self) -> int:
        """Allocated throughout the run."""
        return self.parameters + self.moments + self.reference

    @property
    def step(self) -> int:
        """Peak of a training step beside `steady`."""
        forward = (self.whole or self.gathered) + self.cast_parameters + self.activations + self.logits
        return self.gradients + forward if self.accumulates else max(self.gradients, forward)

    @property
    def held_out(self) -> int:
        """Peak of an evaluation beside `steady`."""
        return self.gathered + self.cast_parameters + self.evaluation

    @property
    def peak(self) -> int:
        """Largest number of bytes allocated at once."""
        return max(self.steady + self.passing, self.loading)

    @property
    def passing(self) -> int:
        """Peak beside `steady`."""
        return max(self.step, self.held_out)

    @property
    def peak_in_evaluation(self) -> bool:
        """Whether an evaluation takes more than a training step."""
        return self.held_out > self.step


@dataclass(frozen=True)
class Remedy:
    """A setting that fits, and its changes."""

    changes: dict[str, int | bool]  # dotted keys of params.yaml
    setting: Setting
    memory: Memory


def memory_of(shape: ModelShape, setting: Setting) -> Memory:
    """Return the memory per device of a run under `setting`."""
    tokens = setting.micro_batch_sequences * setting.sequence_length
    evaluated = setting.evaluation_sequences * setting.sequence_length
    per_process = -(-FLOAT32_BYTES * shape.parameters // setting.processes)
    layer = layer_bytes(shape, setting.bfloat16)
    element = BFLOAT16_BYTES if setting.bfloat16 else FLOAT32_BYTES
    tail = shape.hidden_size * (FLOAT32_BYTES + 2 * element)  # the last norm: input in float32, two of its results
    logits = _loss_bytes(shape, tokens, setting.logits_at_once)
    if setting.activation_checkpointing:
        kept = shape.layers * element * shape.hidden_size + tail
        logits = max(logits, tokens * layer)  # never both: a layer is computed again when the loss is done
    else:
        kept = shape.layers * layer + tail
    measured = shape.measured.activations
    held_out = max(_loss_bytes(shape, evaluated, setting.logits_at_once), evaluated * layer)
    return Memory(
        parameters=per_process,
        gradients=per_process,
        moments=MOMENTS * per_process,
        reference=per_process if setting.reference else 0,
        gathered=_gathered(shape, setting.bfloat16) if setting.processes > 1 else 0,
        whole=(element + FLOAT32_BYTES) * shape.parameters if setting.gather_per_step and setting.processes > 1 else 0,
        cast_parameters=BFLOAT16_BYTES * shape.parameters if setting.bfloat16 and setting.processes == 1 else 0,
        activations=round(measured * tokens * kept),
        logits=round(measured * logits),
        evaluation=round(measured * held_out),
        loading=per_process + (FLOAT32_BYTES * _largest_part(shape) if setting.processes > 1 else 0),
        copy=(1 + MOMENTS) * per_process,
        accumulates=setting.batch_sequences > setting.micro_batch_sequences * setting.processes,
    )


def layer_bytes(shape: ModelShape, bfloat16: bool) -> int:
    """Return the bytes per token that one layer keeps for the backward pass."""
    attention = shape.heads * shape.head_size + shape.key_value_heads * shape.head_size
    if bfloat16:
        return 16 * shape.hidden_size + 4 * attention + 8 * shape.intermediate_size
    return 24 * shape.hidden_size + 8 * attention + 16 * shape.intermediate_size


def fits(shape: ModelShape, setting: Setting, device_bytes: int) -> bool:
    """Return whether the peak leaves the share SPARE of the device free."""
    return memory_of(shape, setting).peak <= device_bytes * (1 - SPARE)


def remedies(shape: ModelShape, setting: Setting, device_bytes: int, *, more_processes: bool = True) -> list[Remedy]:
    """Return settings that fit, the cheapest first: micro-batches, activation checkpointing, more processes.

    At most one of each kind: the largest micro-batches that fit, and the fewest processes. Empty if none fits.
    """
    kinds = [(setting.processes, setting.activation_checkpointing)]
    if not setting.activation_checkpointing:
        kinds.append((setting.processes, True))
    found = [
        _largest_that_fits(shape, replace(setting, processes=n, activation_checkpointing=c), device_bytes)
        for n, c in kinds
    ]
    if more_processes:
        more = (
            fitting
            for count in range(setting.processes + 1, setting.batch_sequences + 1)
            if setting.batch_sequences % count == 0
            and (
                fitting := _largest_that_fits(shape, replace(setting, processes=count), device_bytes)
                or _largest_that_fits(
                    shape, replace(setting, processes=count, activation_checkpointing=True), device_bytes
                )
            )
        )
        found.append(next(more, None))
    return [Remedy(_changes(setting, each), each, memory_of(shape, each)) for each in found if each is not None]


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 80GB, 79.6 GiB or 512MB. Raises ConfigError for other text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise ConfigError(f"--fits: {text!r} is not a size; give a number and a unit, such as 80GB, 24GiB or 512MB")
    return int(float(match[1]) * unit)


def _loss_bytes(shape: ModelShape, tokens: int, logits_at_once: int) -> int:
    return LOSS_BYTES * min(tokens * shape.vocabulary_size, logits_at_once)


def _gathered(shape: ModelShape, bfloat16: bool) -> int:
    """Return what FSDP2 holds unsharded: embedding and head throughout a pass, and the current and the next layer."""
    copies = 2  # parameters and gradients
    unsharded = copies * shape.embedding_parameters + (copies + 1) * _layer_parameters(shape)
    return (BFLOAT16_BYTES if bfloat16 else FLOAT32_BYTES) * unsharded


def _largest_part(shape: ModelShape) -> int:
    """Return the parameters of the largest unit that FSDP2 shards."""
    return max(shape.embedding_parameters, _layer_parameters(shape))


def _layer_parameters(shape: ModelShape) -> int:
    return (shape.parameters - shape.embedding_parameters) // max(1, shape.layers)


def _largest_that_fits(shape: ModelShape, setting: Setting, device_bytes: int) -> Setting | None:
    """Return the setting with the largest micro-batches and evaluation batches, at most the present ones, that fit."""
    for micro in _divisors(setting.batch_sequences // setting.processes, setting.micro_batch_sequences):
        for evaluated in _halves(setting.evaluation_sequences):
            candidate = replace(setting, micro_batch_sequences=micro, evaluation_sequences=evaluated)
            if fits(shape, candidate, device_bytes):
                return candidate
    return None


def _divisors(number: int, largest: int) -> Iterator[int]:
    return (each for each in range(min(number, largest), 0, -1) if number % each == 0)


def _halves(number: int) -> Iterator[int]:
    while number:
        yield number
        number //= 2


def _changes(old: Setting, new: Setting) -> dict[str, int | bool]:
    """Return the settings that differ, by key of params.yaml."""
    keys = {
        "execution.micro_batch_sequences": "micro_batch_sequences",
        "execution.evaluation_micro_batch_sequences": "evaluation_sequences",
        "execution.activation_checkpointing": "activation_checkpointing",
        "resources.processes": "processes",
    }
    return {key: getattr(new, name) for key, name in keys.items() if getattr(new, name) != getattr(old, name)}
