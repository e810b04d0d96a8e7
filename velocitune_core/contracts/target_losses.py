"""Target losses, fitted from the proxies or written by hand."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, FiniteFloat

from velocitune_core.contracts.contract import Contract, Part
from velocitune_core.contracts.losses import LossPoint

Flag = Literal["too_few_points", "at_bound", "wide_interval", "not_decreasing", "above_initial", "missing_proxies"]


class Law(Part):
    """Scaling law L(D) = E + B / (D + D0)^beta, with D in tokens and L in nats per token.

    `chinchilla` (Hoffmann et al. 2022, equation 2 at one model size): D0 = 0. `anchored`: B is such that L(0) equals
    the initial loss.
    """

    kind: Literal["chinchilla", "anchored"] = "chinchilla"
    E: float
    B: float
    beta: float
    D0: Annotated[float, Field(ge=0)] = 0.0

    def predict(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """Return the losses after `tokens` tokens, in nats per token; same shape as `tokens`."""
        return self.E + self.B * (np.asarray(tokens, dtype=float) + self.D0) ** -self.beta


class OtherLaw(Part):
    """The fit that `targets.law: auto` rejected, and its target."""

    law: Law
    target: FiniteFloat
    leave_largest_out_error: float | None


class Evidence(Part):
    """The fit behind a target, and the measures of its quality."""

    tokens: list[int]  # D of the points used
    losses: list[float]
    law: Law
    standard_errors: dict[str, float] = Field(default_factory=dict)  # of the law's free parameters, by bootstrap
    interval: tuple[float, float] | None  # bootstrap interval of the loss reached by a run of the full budget
    leave_largest_out_error: float | None  # relative error at the largest point of a fit without it
    other_law: OtherLaw | None = None


class DomainTarget(Part):
    """Target loss of one domain, in nats per token."""

    target: FiniteFloat
    evidence: Evidence | None = None  # None if written by hand
    flags: list[Flag] = Field(default_factory=list)


class Targets(Contract):
    """results/targets.json. A file written by hand needs only a target per domain."""

    domains: dict[str, DomainTarget] = Field(min_length=1)
    token_budget: int | None = None  # D at which the laws were evaluated
    level: float | None = None  # confidence level of the intervals
    missing_proxies: list[str] = Field(default_factory=list)  # configured proxies that failed after all retries
    measured: LossPoint | None = None  # of sets without training text, at the end of the largest proxy; mean over seeds

    def losses(self) -> dict[str, float]:
        """Return the target loss of each domain, in nats per token."""
        return {name: domain.target for name, domain in self.domains.items()}
