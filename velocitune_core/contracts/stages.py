"""What one stage hands to the next: small JSON files, each with a schema version.

Losses are held-out losses in nats per token, Σ nats / Σ tokens over a domain's held-out set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from velocitune_core.config import Precision, describe_problems
from velocitune_core.files import write_text

Losses = dict[str, FiniteFloat]  # domain → nats per token


class ContractError(ValueError):
    """A stage's file that is missing, malformed or of another version."""


class Contract(BaseModel):
    """A stage's JSON file. Written atomically; read back strictly."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1

    def write(self, path: Path) -> None:
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ContractError naming the file and each wrong field."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ContractError(f"{path}: no such file; run the stage that makes it") from None
        except ValidationError as error:
            raise ContractError(f"{path}: not a valid {cls.__name__} file:\n{describe_problems(error)}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ContractError(f"{path}: not JSON: {error}") from None


class Part(BaseModel):
    """Strict base for what the files are made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(Part):
    """One packed file: an .npy matrix of shape (sequences, sequence_length)."""

    file: str  # relative to the manifest
    documents: int
    sequences: int
    tokens: int
    sha256: str


class DomainManifest(Part):
    train: Split
    held_out: Split
    documents_read: int
    duplicates: int
    too_short: int
    malformed: int = 0  # rows of the source that hold no document


class Manifest(Contract):
    """prepared/manifest.json"""

    sequence_length: int
    vocabulary_size: int
    tokenizer_sha256: str
    domains: dict[str, DomainManifest]


class InitialLosses(Contract):
    """results/initial.json: the base model before any training."""

    losses: Losses
    tokens: dict[str, int]  # evaluated per domain
    seconds: float


class LossPoint(Part):
    """Held-out losses after `tokens` tokens of the whole mixture."""

    step: int
    tokens: int
    losses: Losses


class ProxyResult(Contract):
    """results/proxies/<name>.json"""

    name: str
    fraction: float
    seed: int
    steps: int
    tokens: int  # of the whole mixture
    points: list[LossPoint]  # in order of tokens; the last is at the end of the run
    seconds: float

    @property
    def final(self) -> LossPoint:
        return self.points[-1]


Flag = Literal["too_few_points", "at_bound", "wide_interval", "not_decreasing", "above_initial", "missing_proxies"]


class Law(Part):
    """L(D) = E + B / (D + D0)^beta, D in tokens, L in nats per token.

    `chinchilla` has D0 = 0; `anchored` has the B that makes L(0) the initial loss.
    """

    kind: Literal["chinchilla", "anchored"] = "chinchilla"
    E: float
    B: float
    beta: float
    D0: Annotated[float, Field(ge=0)] = 0.0

    def predict(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """Loss after `tokens` tokens, same shape."""
        return self.E + self.B * (np.asarray(tokens, dtype=float) + self.D0) ** -self.beta


class OtherLaw(Part):
    """What the law that `targets.law: auto` did not choose says."""

    law: Law
    target: FiniteFloat
    leave_largest_out_error: float | None


class Evidence(Part):
    """What a target rests on."""

    tokens: list[int]  # D of the points used
    losses: list[float]
    law: Law
    standard_errors: dict[str, float] = {}  # of the law's free parameters, by bootstrap
    interval: tuple[float, float] | None  # bootstrap interval of the loss that a run of the full budget reaches
    leave_largest_out_error: float | None  # relative error at the largest point, fitted without it
    other_law: OtherLaw | None = None


class DomainTarget(Part):
    target: FiniteFloat
    evidence: Evidence | None = None  # None: written by hand
    flags: list[Flag] = []


class Targets(Contract):
    """results/targets.json; may be written by hand with just a target per domain."""

    domains: dict[str, DomainTarget] = Field(min_length=1)
    token_budget: int | None = None  # D at which the laws were read
    level: float | None = None  # of the intervals
    missing_proxies: list[str] = []  # asked for, and failed for good

    def losses(self) -> dict[str, float]:
        return {name: domain.target for name, domain in self.domains.items()}


class WeightPoint(Part):
    """Weights in force after step `step`, and the velocities that led to them (none for a static strategy)."""

    step: int
    tokens: int
    weights: dict[str, float]
    velocity: dict[str, float] | None = None


class Seconds(Part):
    """Wall time of one training, by what it was spent on."""

    training: float = 0.0  # forward, backward, optimizer
    sampling: float = 0.0  # drawing batches and reading their sequences
    evaluation: float = 0.0
    reweighting: float = 0.0
    checkpointing: float = 0.0
    total: float = 0.0


class TrainResult(Contract):
    """results/train.json, and the result of every proxy and of the base training."""

    name: str
    strategy: str
    precision: Precision  # of matrix products
    steps: int
    tokens: int
    parameters: int
    final: Losses
    points: list[LossPoint]
    weights: list[WeightPoint]
    mean_weights: dict[str, float]  # of the weights that batches were drawn with, over all steps
    tokens_per_domain: dict[str, int]
    epochs_per_domain: dict[str, float]
    tokens_per_second: float
    seconds: Seconds
    resumed: Annotated[int, Field(ge=0)] = 0  # how often the run was taken up again


class DownstreamTask(Part):
    """Gold answers of one task: sums over the instances that were scored."""

    instances: Annotated[int, Field(gt=0)]
    excluded: Annotated[int, Field(ge=0)]  # of the whole task, before the draw: found in training documents
    shortened: Annotated[int, Field(ge=0)]  # instances whose answer did not fit whole
    tokens: Annotated[int, Field(gt=0)]
    bytes: Annotated[int, Field(gt=0)]
    nats: FiniteFloat
    bits_per_byte: FiniteFloat  # nats / (ln 2 · bytes)


class DownstreamScores(Part):
    """One model."""

    context_tokens: int  # that an instance could fill
    families: dict[str, FiniteFloat]  # bits per byte: the mean over the family's tasks, each counted once
    tasks: dict[str, dict[str, DownstreamTask]]  # family → task
    seconds: float


class ComparedRun(Part):
    """One training of a comparison: a strategy under a seed."""

    label: str  # key in `compare.runs`
    seed: int
    result: TrainResult
    search_tokens: int = 0  # trained before it, for it alone: a reference model, a search for weights
    search_seconds: float = 0.0
    uses_targets: bool = False  # so that the proxies are part of its cost
    downstream: dict[str, FiniteFloat] = {}  # family of tasks → bits per byte


class Comparison(Contract):
    """results/comparison.json: every run, and all that they are measured against."""

    baseline: str  # label
    frontier: list[str]  # labels of the constant mixtures, from the least even to the most
    retained: list[str]  # domains that the base model knows already, which are to be kept and not learnt
    initial: Losses
    targets: Losses
    original_weights: dict[str, float]  # w_0 by domain
    domain_tokens: dict[str, int]  # training tokens that each domain holds
    proxy_tokens: int
    proxy_seconds: float
    runs: list[ComparedRun]


class DownstreamResult(Contract):
    """results/downstream.json"""

    models: dict[str, DownstreamScores] = Field(min_length=1)  # by folder
