"""The result of one run of the training program."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from velocitune_core.config import Precision
from velocitune_core.contracts.contract import Contract, Part
from velocitune_core.contracts.losses import Losses, LossPoint


class WeightPoint(Part):
    """Domain weights used from step `step` on, and the velocities they were updated with (None for static ones)."""

    step: int
    tokens: int
    weights: dict[str, float]
    velocity: dict[str, float] | None = None


class Timings(Part):
    """Wall time of one run in seconds, by activity."""

    training: float = 0.0  # forward, backward, optimizer
    sampling: float = 0.0  # sampling batches and reading their sequences
    evaluation: float = 0.0
    reweighting: float = 0.0
    checkpointing: float = 0.0
    total: float = 0.0


class SettingsThen(Part):
    """The pipeline's settings when a run's result was taken, without credentials."""

    everything: dict[str, Any]
    changed: dict[str, Any]  # those that differed from the defaults of that version
    commit: str = ""  # that was checked out, if the run had just ended


class TrainResult(Contract):
    """results/train.json, and the result of every proxy, compared run and base run."""

    name: str
    recipe: str = ""  # fingerprint of the job
    strategy: str
    precision: Precision  # of matrix products
    steps: int
    tokens: int
    parameters: int
    final: Losses
    measured: Losses = Field(default={})  # at the end, of sets without training text
    points: list[LossPoint]
    domain_weights: list[WeightPoint]  # initial weights, then one point per update
    mean_domain_weights: dict[str, float]  # mean over all steps of the weights that batches were sampled with
    tokens_per_domain: dict[str, int]
    epochs_per_domain: dict[str, float]
    tokens_per_second: float
    seconds: Timings
    resumed: Annotated[int, Field(ge=0)] = 0  # number of times the run was resumed
    settings: SettingsThen | None = None  # of the main run only, in results/train.json
