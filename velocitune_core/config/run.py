"""Settings of one run: those that decide its result, and `Execution`, which only says how it is computed."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from velocitune_core.config.base import Fraction, Options, Positive, Section
from velocitune_core.config.misread import advice_on
from velocitune_core.spelling import did_you_mean

Precision = Literal["float32", "bfloat16"]
AUTO_EVALUATIONS = 32  # of a run, with evaluation.every_steps: auto
SaveDtype = Literal["auto", "float32", "bfloat16", "float16"]  # auto: that of the model a run starts from
DecayedParameters = Literal["matrices", "matrices_without_embeddings", "all"]


def added_field(default: Any) -> Any:
    """Return a field that dumps leave out at its default: recipes from before it was added keep their identity."""
    return Field(default=default, exclude_if=lambda value: value == default)


class Schedule(Section):
    """Learning rate as a fraction of its peak: linear warm-up, then cosine, or stable and linear decay (WSD)."""

    kind: Literal["cosine", "wsd"] = "cosine"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05  # of all steps
    warmup_steps: Annotated[int, Field(ge=0)] | None = None  # in place of warmup_fraction: the same for every budget
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2  # of all steps; wsd only
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1  # of the peak, reached at the last step

    @model_validator(mode="after")
    def _decay_follows_the_warmup(self) -> Self:
        if self.kind == "wsd" and self.warmup_steps is None and self.warmup_fraction + self.decay_fraction > 1:
            together = f"warmup_fraction {self.warmup_fraction} and decay_fraction {self.decay_fraction}"
            raise ValueError(f"{together} are more than all steps together; lower one of them")
        return self


class Optimizer(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    epsilon: Annotated[float, Field(gt=0)] = added_field(1e-8)
    weight_decay_on: DecayedParameters = added_field("matrices")  # train/optimizer.py

    def text(self) -> str:
        """Return the settings in words."""
        decayed = self.weight_decay_on.replace("_", " ").replace("all", "all parameters")
        return (
            f"AdamW, peak learning rate {self.learning_rate:g}, betas {self.betas[0]:g} and {self.betas[1]:g}, epsilon "
            f"{self.epsilon:g}, weight decay {self.weight_decay:g} on "
            f"{decayed}, gradients clipped at norm {self.gradient_clip:g}"
        )

    @field_validator("betas", mode="before")
    @classmethod
    def _from_list(cls, betas: Any) -> Any:
        return tuple(betas) if isinstance(betas, list) else betas


class Training(Section):
    """How a model is trained, whatever it is trained on; every field decides the result."""

    token_budget: Positive | None = None  # None: one epoch of the mixture
    batch_sequences: Positive = 16  # per optimizer step, over all processes
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    precision: Literal["auto", Precision] = "auto"  # auto: bfloat16 where the device has units for it
    max_epochs: Annotated[float, Field(gt=0)] | None = None  # per domain; its weight is 0 after that
    seed: int = 1


class Evaluation(Section):
    """How often one run measures all domains and then updates its domain weights."""

    every_steps: Positive = 24  # the paper's m

    def updates(self, steps: int) -> int:
        """Return the updates in a run of so many steps; none follows the last one."""
        return (steps - 1) // self.every_steps


def _auto_or_positive(value: Any) -> Any:
    """Refuse anything else in one message, where a union would give one for each of its types."""
    if value == "auto" or (type(value) is int and value > 0):
        return value
    better = advice_on(value, "int_type") or did_you_mean(value, ["auto"]).removeprefix("; ")
    raise ValueError(f"{value!r} is neither a number of steps, at least 1, nor auto{f'; {better}' if better else ''}")


EverySteps = Annotated[Literal["auto"] | Positive, BeforeValidator(_auto_or_positive)]


class EvaluationConfig(Section):
    """The same, for runs of any length."""

    every_steps: EverySteps = 24  # auto: a thirty-second of each run, so at most 32 evaluations

    def in_run(self, steps: int) -> Evaluation:
        """Return what a run of so many steps does."""
        if self.every_steps == "auto":
            return Evaluation(every_steps=-(-steps // AUTO_EVALUATIONS))
        return Evaluation(every_steps=self.every_steps)


class StrategyConfig(Section):
    name: str = "velocitune"
    options: Options = Field(default={})
    search: Fraction | None = None  # of the budget, to find weights that the run then holds; None: as the strategy


class Execution(Section):
    """How a run is computed, logged and saved. No field decides the result, beyond the rounding of sums.

    A run that was killed goes on from its checkpoint whatever changed here.
    """

    micro_batch_sequences: Positive | None = None  # per forward pass and process; None: the whole batch
    evaluation_micro_batch_sequences: Positive = 32  # held-out sequences per forward pass and process
    activation_checkpointing: bool = False  # less memory, a third more arithmetic: activations are computed twice
    gather: Literal["auto", "layer", "step"] = "auto"  # whole parameters, of several processes: parallel/gathering.py
    compile: Literal["auto", "always", "never"] = "auto"  # torch.compile; auto: train/compilation.py
    log_every_steps: Positive = 5
    checkpoint_every_steps: Positive = 50
    checkpoints_kept: Positive = 2
    on_save_failure: Literal["continue", "stop"] = "continue"  # when a checkpoint cannot be written
    shutdown_seconds: Positive = 300  # from SIGTERM to SIGKILL: for the step under way and a checkpoint


def micro_batch_problem(training: Training, execution: Execution, section: str = "training") -> str | None:
    """Return what is wrong if micro-batches do not fill the batch of `section`."""
    batch, micro = training.batch_sequences, execution.micro_batch_sequences
    if micro is None or batch % micro == 0:
        return None
    return f"{section}.batch_sequences {batch} is not a multiple of execution.micro_batch_sequences {micro}"
