"""Memory of a training per device, in bytes, and what to change if it is too much. Arithmetic only.

Weights, gradients and AdamW's moments are float32 and, under FSDP2, shared evenly over the processes; nothing else is.
Activations are what autograd keeps for a transformers Llama with scaled-dot-product attention, which stores no T × T
matrix. Per token and layer (d hidden, i intermediate, a = heads · head size, k = key-value heads · head size):

    float32    24·d + 8·a + 8·k + 16·i
    bfloat16   16·d + 4·a + 4·k +  8·i      (8·d of it: the inputs of both norms, in float32)

With activation checkpointing a layer keeps its input, 4·d or 2·d, and one layer at a time is computed again. The loss
takes 12 bytes per logit, of LOGITS_AT_ONCE at most, as more are made in chunks. bfloat16 adds a copy of all weights
where one process has them all; under FSDP2 layers are gathered in bfloat16.

These are tensors. What a CPU process holds is up to HEAP times as much, of gaps in the heap and the kernels' scratch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from velocitune_core.config import LOGITS_AT_ONCE, ConfigError
from velocitune_core.plan.cost import FLOAT32_BYTES, MOMENTS, ModelShape

BFLOAT16_BYTES = 2
LOSS_BYTES = 12  # per token and word: logits, their copy without the last position, log-probabilities; as many backward
HEAP = 1.6  # resident size over tensors on a CPU: benchmarks/memory.py found 1.25 to 1.61
SPARE = 0.1  # of a device, for its runtime and for gaps between blocks; assumed, not measured
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class Setting:
    """What the memory of a training depends on, beside the model."""

    sequence_length: int
    batch_sequences: int  # per step, over all processes
    micro_batch_sequences: int  # per forward pass and process
    evaluation_sequences: int  # per forward pass and process
    processes: int = 1
    bfloat16: bool = False
    activation_checkpointing: bool = False
    reference: bool = False  # a second, frozen model beside this one


@dataclass(frozen=True)
class Memory:
    """Bytes per device. Not all of it is there at once: see `peak`."""

    weights: int
    gradients: int
    moments: int
    reference: int
    gathered: int  # FSDP: weights and gradients of the layers at work, whole
    cast_weights: int  # bfloat16 copies
    activations: int
    logits: int
    evaluation: int  # of a held-out batch, when no activations are kept
    loading: int  # shares, and whole the one layer, or the embedding, that is being shared
    accumulates: bool  # gradients of earlier micro-batches are there while another one is run

    @property
    def steady(self) -> int:
        return self.weights + self.moments + self.reference

    @property
    def step(self) -> int:
        """Most that a step takes beside what is steady."""
        forward = self.gathered + self.cast_weights + self.activations + self.logits
        return self.gradients + forward if self.accumulates else max(self.gradients, forward)

    @property
    def held_out(self) -> int:
        """The same of an evaluation."""
        return self.gathered + self.cast_weights + self.evaluation

    @property
    def peak(self) -> int:
        return max(self.steady + max(self.step, self.held_out), self.loading)

    @property
    def peak_in_evaluation(self) -> bool:
        return self.held_out > self.step


@dataclass(frozen=True)
class Remedy:
    """A setting that fits, and what it changes."""

    changes: dict[str, int | bool]  # dotted keys of params.yaml
    setting: Setting
    memory: Memory


def memory(shape: ModelShape, setting: Setting) -> Memory:
    """Per device, of a training under `setting`."""
    tokens = setting.micro_batch_sequences * setting.sequence_length
    evaluated = setting.evaluation_sequences * setting.sequence_length
    per_process = -(-FLOAT32_BYTES * shape.parameters // setting.processes)
    layer = layer_bytes(shape, setting.bfloat16)
    element = BFLOAT16_BYTES if setting.bfloat16 else FLOAT32_BYTES
    tail = shape.hidden_size * (FLOAT32_BYTES + 2 * element)  # the last norm: input in float32, two of its results
    logits = _loss_bytes(shape, tokens)
    if setting.activation_checkpointing:
        kept = shape.layers * element * shape.hidden_size + tail
        logits = max(logits, tokens * layer)  # never both: a layer is computed again when the loss is done
    else:
        kept = shape.layers * layer + tail
    return Memory(
        weights=per_process,
        gradients=per_process,
        moments=MOMENTS * per_process,
        reference=per_process if setting.reference else 0,
        gathered=_gathered(shape, setting.bfloat16) if setting.processes > 1 else 0,
        cast_weights=BFLOAT16_BYTES * shape.parameters if setting.bfloat16 and setting.processes == 1 else 0,
        activations=tokens * kept,
        logits=logits,
        evaluation=max(_loss_bytes(shape, evaluated), evaluated * layer),
        loading=per_process + (FLOAT32_BYTES * _largest_part(shape) if setting.processes > 1 else 0),
        accumulates=setting.batch_sequences > setting.micro_batch_sequences * setting.processes,
    )


def layer_bytes(shape: ModelShape, bfloat16: bool) -> int:
    """What one layer keeps per token until its gradients are computed."""
    attention = shape.heads * shape.head_size + shape.key_value_heads * shape.head_size
    if bfloat16:
        return 16 * shape.hidden_size + 4 * attention + 8 * shape.intermediate_size
    return 24 * shape.hidden_size + 8 * attention + 16 * shape.intermediate_size


def fits(shape: ModelShape, setting: Setting, device_bytes: int) -> bool:
    """Whether the peak leaves SPARE of the device free."""
    return memory(shape, setting).peak <= device_bytes * (1 - SPARE)


def remedies(shape: ModelShape, setting: Setting, device_bytes: int, *, more_processes: bool = True) -> list[Remedy]:
    """What to change so that it fits, the cheapest first: micro-batches, activation checkpointing, more processes.

    At most one of each kind: the largest micro-batches that fit, and the fewest processes. Empty if nothing helps.
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
    return [Remedy(_changes(setting, each), each, memory(shape, each)) for each in found if each is not None]


def parse_size(text: str) -> int:
    """Bytes of a size such as 80GB, 79.6 GiB or 512MB. Raises ConfigError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise ConfigError(f"--fits: {text!r} is no size; give a number and a unit, such as 80GB, 24GiB or 512MB")
    return int(float(match[1]) * unit)


def _loss_bytes(shape: ModelShape, tokens: int) -> int:
    return LOSS_BYTES * min(tokens * shape.vocabulary_size, LOGITS_AT_ONCE)


def _gathered(shape: ModelShape, bfloat16: bool) -> int:
    """FSDP2 keeps embedding, head and last norm whole through a pass, and two layers: the one at work and the next."""
    weights_and_gradients = 2
    return (BFLOAT16_BYTES if bfloat16 else FLOAT32_BYTES) * (
        weights_and_gradients * shape.embedding_parameters + (weights_and_gradients + 1) * _layer_parameters(shape)
    )


def _largest_part(shape: ModelShape) -> int:
    """Parameters of what FSDP2 shares in one go."""
    return max(shape.embedding_parameters, _layer_parameters(shape))


def _layer_parameters(shape: ModelShape) -> int:
    return (shape.parameters - shape.embedding_parameters) // max(1, shape.layers)


def _largest_that_fits(shape: ModelShape, setting: Setting, device_bytes: int) -> Setting | None:
    """With micro-batches, and batches of evaluation, no larger than they are, and as large as fits."""
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
    """By key of params.yaml."""
    keys = {
        "execution.micro_batch_sequences": "micro_batch_sequences",
        "execution.evaluation_micro_batch_sequences": "evaluation_sequences",
        "execution.activation_checkpointing": "activation_checkpointing",
        "resources.processes": "processes",
    }
    return {key: getattr(new, name) for key, name in keys.items() if getattr(new, name) != getattr(old, name)}
