"""An objective applied to one law: the average, the guards and the bounds as functions of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.objective_checks import is_number
from velocitune_core.mixture_law.room import Room
from velocitune_core.mixture_law.share_bounds import ShareBounds, by_name, share_bounds
from velocitune_core.mixture_law.support import Support, Table, support_of

Array = NDArray[np.float64]
Kind = Literal["set", "average", "forgetting"]


class Losses(Protocol):
    """What optimisation needs of a law."""

    def losses(self, weights: Array) -> Array:
        """Return the losses (..., I) of mixtures (..., K)."""
        ...

    def jacobian(self, weights: Array) -> Array:
        """Return their derivatives (..., I, K)."""
        ...


class Runs(Protocol):
    """The runs that a law was fitted to."""

    @property
    def weights(self) -> Array:
        """Weights (R, K)."""
        ...


class Law(Losses, Protocol):
    """A fitted law, as optimisation uses it; `MixtureLaw` is one."""

    @property
    def name(self) -> str:
        """Which law it is."""
        ...

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the K domains."""
        ...

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the I held-out sets."""
        ...

    @property
    def runs(self) -> Runs:
        """What it was fitted to."""
        ...

    @property
    def convex(self) -> bool:
        """Whether the losses are convex in the weights."""
        ...

    @property
    def noise(self) -> Array:
        """Standard deviation (I,) of a run around the law, nats."""
        ...

    @property
    def resamples(self) -> int:
        """How many laws of resampled runs there are, B."""
        ...

    def resampled(self, index: int) -> Losses:
        """Return the law of one resample."""
        ...

    def interval(self, weights: object, level: float = 0.95) -> dict[str, tuple[Array, Array]]:
        """Return by set the interval of a new run's losses, for weights by domain."""
        ...

    def resampled_losses(self, weights: Array) -> Array:
        """Return the losses (B, ..., I) under all resamples."""
        ...


@dataclass(frozen=True)
class Guard:
    """shares · losses(w) may exceed its reference by at most `limit` nats."""

    kind: Kind
    about: str  # a set or an average
    shares: Array  # (I,)
    limit: float
    initial: float | None = None  # the reference; None: static training
    shared: bool = False  # whether the limit is one number for several sets

    @property
    def name(self) -> str:
        """How the guard is named to users."""
        return f"forgetting of {self.about}" if self.kind == "forgetting" else f"{self.about} against static"


@dataclass(frozen=True)
class Terms:
    """An objective in the order of a law's domains (K) and sets (I)."""

    domains: tuple[str, ...]
    sets: tuple[str, ...]
    averages: dict[str, Array]  # (I,) shares of each known average, the minimised one first
    guards: tuple[Guard, ...]
    bounds: tuple[ShareBounds, ...]  # of each domain
    static: Array | None  # (K,) w₀

    @classmethod
    def of(cls, objective: Objective, domains: Sequence[str], sets: Sequence[str]) -> Terms:
        """Check an objective against the names and return its terms. Raises ObjectiveError."""
        objective.check(domains, sets)
        initial = objective.initial_shares()
        averages = {
            name: np.array(list(objective.average_shares(name, domains, sets).values()))
            for name in objective.average_names()
        }
        return cls(
            domains=tuple(domains),
            sets=tuple(sets),
            averages=averages,
            guards=tuple(_guards(objective, sets, averages)),
            bounds=tuple(share_bounds(objective, domains)),
            static=None if initial is None else np.array([initial[name] for name in domains]),
        )

    @property
    def average(self) -> Array:
        """The shares (I,) that are minimised."""
        return next(iter(self.averages.values()))

    def without_guards(self) -> Terms:
        """Return the same average without guards and bounds."""
        free = tuple(ShareBounds(name, 0.0, 1.0, "", 0.0) for name in self.domains)
        return replace(self, guards=(), bounds=free)


def _guards(objective: Objective, sets: Sequence[str], averages: Mapping[str, Array]) -> list[Guard]:
    unit = dict(zip(sets, np.eye(len(sets)), strict=True))
    guards = [
        Guard("average", name, averages[name], float(limit))
        for name, limit in objective.averages_worse_than_static.items()
    ]
    for name, limit in by_name(objective.worse_than_static, sets).items():
        guards.append(Guard("set", name, unit[name], limit, shared=is_number(objective.worse_than_static)))
    for name, limit in by_name(objective.forgetting, objective.retained).items():
        initial, shared = float(objective.initial_losses[name]), is_number(objective.forgetting)
        guards.append(Guard("forgetting", name, unit[name], limit, initial, shared))
    return guards


@dataclass(frozen=True)
class Problem:
    """Minimise the average of one law's losses over mixtures that keep all guards and bounds, inside a support."""

    law: Losses
    terms: Terms
    support: Support
    guarding: Losses | None = None  # the law that guards are read from; None: the same

    @classmethod
    def of(cls, law: Law, objective: Objective, support: Support | Table | None) -> Problem:
        """Return the problem of a fitted law; the support reaches as far as w₀.

        Raises ObjectiveError, also for `forgetting` under a law that predicts no losses.
        """
        terms = Terms.of(objective, law.domains, law.sets)
        if getattr(law, "of_differences", False) and any(guard.kind == "forgetting" for guard in terms.guards):
            raise ObjectiveError(
                f"objective.forgetting is {objective.forgetting}, but the law predicts differences to static training "
                "and no losses; give at_full_budget the static_losses of the full budget"
            )
        region = support_of(support, law.domains, law.runs.weights)
        return cls(law, terms, region if terms.static is None else region.reaching(terms.static))

    @cached_property
    def room(self) -> Room:
        """The mixtures within bounds and support."""
        return Room(self.terms.bounds, self.support)

    @property
    def low(self) -> Array:
        """Least weight (K,): the larger one of the objective's and the support's."""
        return self.room.low

    @property
    def high(self) -> Array:
        """Largest weight (K,)."""
        return self.room.high

    @cached_property
    def _guard_shares(self) -> Array:
        return np.array([guard.shares for guard in self.terms.guards]).reshape(-1, len(self.terms.sets))  # (G, I)

    @cached_property
    def _most(self) -> Array:
        """What each guarded value may be at most (G,), nats."""
        guards = self.terms.guards
        static = (
            np.zeros(len(self.terms.sets)) if self.terms.static is None else self._guarding.losses(self.terms.static)
        )
        return np.array([(g.shares @ static if g.initial is None else g.initial) + g.limit for g in guards])

    def value(self, weights: Array) -> float:
        """Return the average, nats."""
        return float(self.terms.average @ self.law.losses(weights))

    def gradient(self, weights: Array) -> Array:
        """Return its gradient (K,)."""
        return self.terms.average @ self.law.jacobian(weights)

    def excess(self, weights: Array) -> Array:
        """Return by how many nats mixtures (..., K) break each guard (..., G); negative: room."""
        return self._guarding.losses(weights) @ self._guard_shares.T - self._most

    def excess_jacobian(self, weights: Array) -> Array:
        """Return the derivatives of `excess` (G, K)."""
        return self._guard_shares @ self._guarding.jacobian(weights)

    @property
    def _guarding(self) -> Losses:
        return self.law if self.guarding is None else self.guarding
