"""The runs of a comparison, and the quantities that they are measured against."""

from __future__ import annotations

from pydantic import Field, FiniteFloat

from velocitune_core.contracts.contract import Contract, Part
from velocitune_core.contracts.losses import Losses
from velocitune_core.contracts.target_losses import Law
from velocitune_core.contracts.train_result import TrainResult


class ComparedRun(Part):
    """One run of a comparison: a label under a seed."""

    label: str  # key in `compare.runs`
    seed: int
    result: TrainResult
    search_tokens: int = 0  # trained for this run alone before it: a reference model, a search for domain weights
    search_seconds: float = 0.0
    search_runs: dict[str, float] = Field(default_factory=dict)  # seconds by the end of a run's folder; no proxies
    uses_targets: bool = False  # whether the cost of the proxies is part of its cost
    proxy_tokens: int | None = None  # of the proxies of its own targets; None: those of the comparison
    proxy_seconds: float | None = None
    downstream: dict[str, FiniteFloat] = Field(default_factory=dict)  # family of tasks → bits per byte


class Comparison(Contract):
    """results/comparison.json"""

    baseline: str  # label
    frontier: list[str]  # labels of the constant mixtures, from the least uniform to the most
    retained: list[str]  # domains of the base model's own training data, to be kept rather than learnt
    initial: Losses
    targets: Losses
    initial_domain_weights: dict[str, float]  # w_0
    domain_tokens: dict[str, int]  # training tokens in each domain
    proxy_tokens: int
    proxy_seconds: float
    runs: list[ComparedRun]
    initial_measured: Losses = Field(default_factory=dict)  # of the base model, of sets without training text
    target_laws: dict[str, Law] = Field(default_factory=dict)  # behind the targets, by domain; not of those by hand
