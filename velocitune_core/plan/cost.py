"""Estimate what runs cost before they start: tokens, steps, floating-point operations, disk, time. Arithmetic only.

Operations are those of the matrix products; a multiplication and an addition count as two. Per token of a step:

    6·N + 12·L·H·Q·T

N parameters, L layers, H heads of size Q, T tokens in a sequence. 6·N is from Kaplan et al. (2020, arXiv 2001.08361,
table 1), with the embeddings counted in N as Hoffmann et al. (2022, arXiv 2203.15556) do. The second term is the
attention over T tokens of PaLM (Chowdhery et al., 2022, arXiv 2204.02311, appendix B), not halved for the causal mask.
A pass without gradients costs a third of a step. With activation checkpointing the layers are computed once more.

A probe counts what a few layers really do (`Calibration`); the arithmetic then only adds the layers beyond those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from velocitune_core.train.job import TrainJob

FLOAT32_BYTES, MOMENTS = 4, 2  # AdamW keeps two moments per parameter, as wide as the parameter
PASSES_OF_A_STEP = 3  # a forward pass, and a backward pass that costs two


@dataclass(frozen=True)
class Calibration:
    """What a probe measured against this arithmetic; the default is arithmetic alone."""

    step_flops: float = 0.0  # per token of a step, in addition to the arithmetic
    forward_flops: float = 0.0  # per token of a pass without gradients, likewise
    activations: float = 1.0  # bytes of a pass over those of the arithmetic


@dataclass(frozen=True)
class ModelShape:
    """A decoder with gated feed-forward layers, such as Llama, Mistral or Qwen."""

    parameters: int  # in total, tied ones counted once
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary_size: int
    tied: bool  # one matrix for embedding and head
    measured: Calibration = Calibration()

    @property
    def embedding_parameters(self) -> int:
        """Parameters of embedding and head."""
        return self.vocabulary_size * self.hidden_size * (1 if self.tied else 2)


@dataclass(frozen=True)
class Run:
    """One training run, or one evaluation if `steps` is 0."""

    name: str
    steps: int
    batch_sequences: int  # per step, over all ranks
    sequence_length: int  # tokens
    evaluations: int
    evaluated_sequences: int  # per evaluation, over all domains
    checkpoints: int = 0  # written during the run
    checkpoints_kept: int = 0  # of one run at its end
    reference: bool = False  # a reference model evaluates every batch
    recomputes: bool = False  # activation checkpointing
    saves_model: bool = False
    work: float = 1.0  # operations per token, over those of the model that the plan is of

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return self.steps * self.batch_sequences * self.sequence_length

    @property
    def evaluated_tokens(self) -> int:
        """Tokens of all evaluations."""
        return self.evaluations * self.evaluated_sequences * self.sequence_length


@dataclass(frozen=True)
class Speed:
    """Measured seconds; a sequence has the length of the training data."""

    start: float  # from starting a training process to its first step
    step_per_sequence: float  # forward, backward and optimizer
    evaluation_per_sequence: float
    checkpoint: float | None  # None: not measured, counted as 0


@dataclass(frozen=True)
class Stage:
    """Runs of one stage, of which `parallel` run at the same time."""

    name: str
    runs: tuple[Run, ...] = ()
    parallel: int = 1
    finished: int = 0  # of these runs, which are priced but not repeated


@dataclass(frozen=True)
class Cost:
    """The cost of one or several stages; seconds are None if speed was not measured."""

    tokens: int
    steps: int
    training_flops: float
    evaluation_flops: float
    seconds: float | None

    @property
    def flops(self) -> float:
        return self.training_flops + self.evaluation_flops


@dataclass(frozen=True)
class Disk:
    """Disk space in bytes."""

    packed: int
    checkpoints: int  # kept at the end; while one is written, it takes its size in addition
    models: int

    @property
    def total(self) -> int:
        return self.packed + self.checkpoints + self.models


def planned_run(job: TrainJob, sequence_length: int, evaluated_sequences: int, *, reference: bool = False) -> Run:
    """Return the run of a job, with the evaluations and checkpoints that the training loop will make."""
    every, saving = job.evaluation.every_steps, job.execution.checkpoint_every_steps
    stable = int(job.training.schedule.kind == "wsd")  # one more, where the decay begins, is kept for larger budgets
    return Run(
        name=job.name,
        steps=job.total_steps,
        batch_sequences=job.training.batch_sequences,
        sequence_length=sequence_length,
        evaluations=-(-job.total_steps // every),
        evaluated_sequences=evaluated_sequences,
        checkpoints=job.total_steps // saving + stable,
        checkpoints_kept=min(job.total_steps // saving, job.execution.checkpoints_kept) + stable,
        reference=reference,
        recomputes=job.execution.activation_checkpointing,
        saves_model=job.save_model,
    )


def flops_per_token(shape: ModelShape, sequence_length: int, *, recomputes: bool = False) -> float:
    """Return the operations of a training step per token; with `recomputes`, of one under activation checkpointing."""
    attention = 12.0 * shape.layers * shape.heads * shape.head_size * sequence_length
    again = (6 * (shape.parameters - shape.embedding_parameters) + attention) / PASSES_OF_A_STEP if recomputes else 0.0
    return 6 * shape.parameters + attention + again + shape.measured.step_flops


def forward_flops_per_token(shape: ModelShape, sequence_length: int) -> float:
    """Return the operations of a pass without gradients per token."""
    step = flops_per_token(replace(shape, measured=Calibration()), sequence_length)
    return step / PASSES_OF_A_STEP + shape.measured.forward_flops


def estimate_cost(stages: Iterable[Stage], shape: ModelShape, speeds: Sequence[Speed | None]) -> list[Cost]:
    """Return one cost per stage; `speeds` has one entry per stage, None if it was not measured."""
    return [_cost_of(stage, shape, speed) for stage, speed in zip(stages, speeds, strict=True)]


def total_cost(costs: Iterable[Cost]) -> Cost:
    """Return the cost of stages that run one after the other; seconds are None if any are."""
    listed = list(costs)
    seconds = [each.seconds for each in listed]
    return Cost(
        tokens=sum(each.tokens for each in listed),
        steps=sum(each.steps for each in listed),
        training_flops=sum(each.training_flops for each in listed),
        evaluation_flops=sum(each.evaluation_flops for each in listed),
        seconds=None if None in seconds else sum(each for each in seconds if each is not None),
    )


def run_seconds(run: Run, speed: Speed) -> float:
    """Return the seconds of one run. A reference model adds a forward pass, a third of a step."""
    passes = 1 + (1 / PASSES_OF_A_STEP if run.reference else 0)
    training = run.steps * run.batch_sequences * speed.step_per_sequence * passes
    evaluation = run.evaluations * run.evaluated_sequences * speed.evaluation_per_sequence
    return speed.start + run.work * (training + evaluation) + run.checkpoints * (speed.checkpoint or 0.0)


def with_layers(shape: ModelShape, layers: int) -> ModelShape:
    """Return the shape of the same model with another number of layers."""
    each = (shape.parameters - shape.embedding_parameters) // max(1, shape.layers)
    return replace(shape, layers=layers, parameters=shape.parameters + (layers - shape.layers) * each)


def cluster_seconds(flops: float, devices: int, peak_flops_per_second: float, utilisation: float) -> float:
    """Return the seconds of `flops` operations at an assumed model FLOPs utilisation, a share of the devices' peak."""
    return flops / (devices * peak_flops_per_second * utilisation)


def checkpoint_bytes(shape: ModelShape) -> int:
    """Return the size of a checkpoint: parameters and both moments in float32; a tied head is written twice."""
    head = shape.embedding_parameters if shape.tied else 0
    return FLOAT32_BYTES * ((1 + MOMENTS) * shape.parameters + head)


def model_bytes(shape: ModelShape) -> int:
    """Return the size of a saved model in float32."""
    return FLOAT32_BYTES * shape.parameters


def token_bytes(vocabulary_size: int) -> int:
    """Return the size of one packed token."""
    return 2 if vocabulary_size <= 1 << 16 else 4


def disk(stages: Iterable[Stage], shape: ModelShape, packed_tokens: int, published_models: int) -> Disk:
    """Return the disk space of packed tokens, all checkpoints and models, and `published_models` under models/."""
    runs = [run for stage in stages for run in stage.runs]
    return Disk(
        packed=packed_tokens * token_bytes(shape.vocabulary_size),
        checkpoints=sum(run.checkpoints_kept for run in runs) * checkpoint_bytes(shape),
        models=(sum(run.saves_model for run in runs) + published_models) * model_bytes(shape),
    )


def _cost_of(stage: Stage, shape: ModelShape, speed: Speed | None) -> Cost:
    training = evaluation = 0.0
    for run in stage.runs:
        forward = forward_flops_per_token(shape, run.sequence_length)
        step = flops_per_token(shape, run.sequence_length, recomputes=run.recomputes)
        training += run.work * run.tokens * (step + (forward if run.reference else 0))
        evaluation += run.work * run.evaluated_tokens * forward
    return Cost(
        tokens=sum(run.tokens for run in stage.runs),
        steps=sum(run.steps for run in stage.runs),
        training_flops=training,
        evaluation_flops=evaluation,
        seconds=None
        if speed is None
        else _side_by_side([run_seconds(run, speed) for run in stage.runs], stage.parallel),
    )


def _side_by_side(seconds: Iterable[float], parallel: int) -> float:
    """Return when the last of `parallel` concurrent runs ends, where each starts as soon as another has ended."""
    ends: list[float] = []
    for each in seconds:
        heappush(ends, each + (heappop(ends) if len(ends) == parallel else 0.0))
    return max(ends, default=0.0)
