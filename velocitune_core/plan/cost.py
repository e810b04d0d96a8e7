"""What trainings cost before they start: tokens, steps, floating-point operations, disk, time. Arithmetic only.

Operations are those of the matrix products, a multiplication and an addition counted as two. Per token of a step:

    6·N + 12·L·H·Q·T

N parameters, L layers, H heads of size Q, T tokens in a sequence. 6·N is Kaplan et al. (2020, arXiv 2001.08361, table
1) with the embeddings counted in N, as Hoffmann et al. (2022, arXiv 2203.15556) do; the second term is the attention
over T tokens of PaLM (Chowdhery et al., 2022, arXiv 2204.02311, appendix B), which does not halve it for the causal
mask. A pass without gradients is a third of it. Recomputed activations are no work towards the result, and not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from velocitune_core.train.job import TrainJob

FLOAT32_BYTES, MOMENTS = 4, 2  # AdamW keeps two moments per parameter, as wide as the parameter
PASSES_OF_A_STEP = 3  # forward, and twice as much backward


@dataclass(frozen=True)
class ModelShape:
    """A decoder with gated feed-forward layers, such as Llama, Mistral or Qwen."""

    parameters: int  # all of them, tied ones once
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary_size: int
    tied: bool  # one matrix for embedding and head

    @property
    def embedding_parameters(self) -> int:
        """Of embedding and head."""
        return self.vocabulary_size * self.hidden_size * (1 if self.tied else 2)


@dataclass(frozen=True)
class Run:
    """One training, or one evaluation where `steps` is 0."""

    name: str
    steps: int
    batch_sequences: int  # per step, over all processes
    sequence_length: int  # tokens
    evaluations: int
    evaluated_sequences: int  # per evaluation, over all domains
    checkpoints: int = 0  # written along the run
    checkpoints_kept: int = 0
    reference: bool = False  # a second model is run forward on every batch
    saves_model: bool = False
    process: bool = True  # a process of its own, which takes time to start

    @property
    def tokens(self) -> int:
        """Trained on."""
        return self.steps * self.batch_sequences * self.sequence_length

    @property
    def evaluated_tokens(self) -> int:
        return self.evaluations * self.evaluated_sequences * self.sequence_length


@dataclass(frozen=True)
class Speed:
    """Seconds as measured; per sequence of the length that is trained on."""

    start: float  # of a training process, until its first step
    step_per_sequence: float  # forward, backward and the optimizer's share
    evaluation_per_sequence: float
    checkpoint: float | None  # None: not measured, and left out


@dataclass(frozen=True)
class Stage:
    """Runs of one stage, so many side by side, one after the other where `parallel` is 1."""

    name: str
    runs: tuple[Run, ...] = ()
    parallel: int = 1


@dataclass(frozen=True)
class Price:
    """Of a stage or of several; seconds are None where nothing was measured."""

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
    """Bytes."""

    packed: int
    checkpoints: int  # that stay when all is done; while one is written it takes its room once more
    models: int

    @property
    def total(self) -> int:
        return self.packed + self.checkpoints + self.models


def planned_run(job: TrainJob, sequence_length: int, evaluated_sequences: int, *, reference: bool = False) -> Run:
    """What the training loop will do with a job: evaluate at multiples of steps and at the end, and save at others."""
    every, saving = job.evaluation.every_steps, job.execution.checkpoint_every_steps
    return Run(
        name=job.name,
        steps=job.total_steps,
        batch_sequences=job.training.batch_sequences,
        sequence_length=sequence_length,
        evaluations=-(-job.total_steps // every),
        evaluated_sequences=evaluated_sequences,
        checkpoints=job.total_steps // saving,
        checkpoints_kept=min(job.total_steps // saving, job.execution.checkpoints_kept),
        reference=reference,
        saves_model=job.save_model,
    )


def flops_per_token(shape: ModelShape, sequence_length: int) -> float:
    """Of a training step."""
    attention = 12 * shape.layers * shape.heads * shape.head_size * sequence_length
    return 6.0 * shape.parameters + attention


def price(stages: Iterable[Stage], shape: ModelShape, speeds: Sequence[Speed | None]) -> list[Price]:
    """One price per stage; `speeds` are as many, None where nothing was measured."""
    return [_price_of(stage, shape, speed) for stage, speed in zip(stages, speeds, strict=True)]


def total(prices: Iterable[Price]) -> Price:
    """Stages follow each other. Seconds are known if all of them are."""
    listed = list(prices)
    seconds = [each.seconds for each in listed]
    return Price(
        tokens=sum(each.tokens for each in listed),
        steps=sum(each.steps for each in listed),
        training_flops=sum(each.training_flops for each in listed),
        evaluation_flops=sum(each.evaluation_flops for each in listed),
        seconds=None if None in seconds else sum(each for each in seconds if each is not None),
    )


def run_seconds(run: Run, speed: Speed) -> float:
    """Of one training. A reference model costs a pass without gradients, and so a third of a step more."""
    passes = 1 + (1 / PASSES_OF_A_STEP if run.reference else 0)
    return (
        (speed.start if run.process else 0.0)
        + run.steps * run.batch_sequences * speed.step_per_sequence * passes
        + run.evaluations * run.evaluated_sequences * speed.evaluation_per_sequence
        + run.checkpoints * (speed.checkpoint or 0.0)
    )


def cluster_seconds(flops: float, devices: int, peak_flops_per_second: float, utilisation: float) -> float:
    """Time of `flops` operations at an assumed share (model FLOPs utilisation) of the devices' peak."""
    return flops / (devices * peak_flops_per_second * utilisation)


def checkpoint_bytes(shape: ModelShape) -> int:
    """Weights and both moments in float32; a tied head is written twice."""
    head = shape.embedding_parameters if shape.tied else 0
    return FLOAT32_BYTES * ((1 + MOMENTS) * shape.parameters + head)


def model_bytes(shape: ModelShape) -> int:
    """A saved model, in float32."""
    return FLOAT32_BYTES * shape.parameters


def token_bytes(vocabulary_size: int) -> int:
    """Of one packed token."""
    return 2 if vocabulary_size <= 1 << 16 else 4


def disk(stages: Iterable[Stage], shape: ModelShape, packed_tokens: int, published_models: int) -> Disk:
    """Room for packed tokens, every run's checkpoints and models, and `published_models` copies under models/."""
    runs = [run for stage in stages for run in stage.runs]
    return Disk(
        packed=packed_tokens * token_bytes(shape.vocabulary_size),
        checkpoints=sum(run.checkpoints_kept for run in runs) * checkpoint_bytes(shape),
        models=(sum(run.saves_model for run in runs) + published_models) * model_bytes(shape),
    )


def _price_of(stage: Stage, shape: ModelShape, speed: Speed | None) -> Price:
    training = evaluation = 0.0
    for run in stage.runs:
        per_token = flops_per_token(shape, run.sequence_length)
        training += run.tokens * per_token * (1 + (1 / PASSES_OF_A_STEP if run.reference else 0))
        evaluation += run.evaluated_tokens * per_token / PASSES_OF_A_STEP
    return Price(
        tokens=sum(run.tokens for run in stage.runs),
        steps=sum(run.steps for run in stage.runs),
        training_flops=training,
        evaluation_flops=evaluation,
        seconds=None
        if speed is None
        else _side_by_side([run_seconds(run, speed) for run in stage.runs], stage.parallel),
    )


def _side_by_side(seconds: Iterable[float], parallel: int) -> float:
    """When the last of them ends, each taken up as soon as one of `parallel` places is free."""
    ends: list[float] = []
    for each in seconds:
        heappush(ends, each + (heappop(ends) if len(ends) == parallel else 0.0))
    return max(ends, default=0.0)
