"""A guard on losses by its name: the limit that an objective has for it, and what losses reach of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.share_bounds import by_name

FIELDS = {  # of an objective, by kind of guard
    "set": "worse_than_static",
    "average": "averages_worse_than_static",
    "forgetting": "forgetting",
}
SETS, FORGETTING = FIELDS["set"], FIELDS["forgetting"]
Losses = Mapping[str, float]  # by held-out set, nats per token


class NamedGuard(NamedTuple):
    """What a guard limits: one set or average, or whichever set is worst off.

    Names are "worse_than_static" (of all sets), "forgetting" (of the retained sets), either of them followed by a dot
    and the name of one set, and names of averages.
    """

    kind: Literal["set", "forgetting", "average"]
    about: str = ""  # a set or an average; "" for all sets

    @classmethod
    def of(cls, name: str) -> NamedGuard:
        """Return the guard of a name."""
        field, _, about = name.partition(".")
        if field == SETS:
            return cls("set", about)
        return cls("forgetting", about) if field == FORGETTING else cls("average", name)

    @property
    def name(self) -> str:
        """The name of the guard."""
        if self.kind == "average":
            return self.about
        field = SETS if self.kind == "set" else FORGETTING
        return f"{field}.{self.about}" if self.about else field

    @property
    def title(self) -> str:
        """What it limits, in words."""
        if self.kind == "forgetting":
            return f"forgetting of {self.about}" if self.about else "forgetting"
        return self.about or "the set that is worst off"

    def limit(self, objective: Objective) -> float | None:
        """Return the limit that an objective has for it, nats; None if it has none."""
        if self.kind == "average":
            return objective.averages_worse_than_static.get(self.about)
        limits = objective.worse_than_static if self.kind == "set" else objective.forgetting
        if isinstance(limits, Mapping):
            return limits.get(self.about)
        return limits

    def with_limit(self, objective: Objective, limit: float, sets: Sequence[str]) -> Objective:
        """Return an objective with another limit; its other guards stay, but a limit of all sets replaces each own.

        Args:
            objective, limit: in nats.
            sets: all of the law, which one number of the objective holds for.
        """
        if self.kind == "average":
            limits = {**objective.averages_worse_than_static, self.about: limit}
            return replace(objective, averages_worse_than_static=limits)
        if self.kind == "set":
            before = by_name(objective.worse_than_static, sets)
            return replace(objective, worse_than_static={**before, self.about: limit} if self.about else limit)
        before = by_name(objective.forgetting, objective.retained)
        return replace(objective, forgetting={**before, self.about: limit} if self.about else limit)

    def sets(self, objective: Objective, domains: Sequence[str], sets: Sequence[str]) -> set[str]:
        """Return the sets whose losses it reads, of all `sets` of a law."""
        if self.kind == "average":
            shares = objective.average_shares(self.about, domains, sets)
            return {name for name, share in shares.items() if share}
        every = sets if self.kind == "set" else objective.retained
        return {self.about} if self.about else {*every}

    def reached(self, objective: Objective, losses: Losses, static: Losses, domains: Sequence[str]) -> float:
        """Return what losses reach of it, nats.

        Args:
            objective: which must have passed its check.
            losses, static: of a run and of static training, of the sets that averages are over.
            domains: that are trained on.
        """
        if self.kind == "average":
            shares = objective.average_shares(self.about, domains, list(losses))
            return sum(share * (losses[name] - static[name]) for name, share in shares.items())
        before = static if self.kind == "set" else objective.initial_losses
        return max(losses[name] - before[name] for name in self.sets(objective, domains, [*losses]))


def guards_of(objective: Objective) -> dict[NamedGuard, float]:
    """Return the guards on losses that an objective has, with their limits; one number for all sets is one guard."""
    guards = [NamedGuard("average", name) for name in objective.averages_worse_than_static]
    for kind, limits in (("set", objective.worse_than_static), ("forgetting", objective.forgetting)):
        names = [] if limits is None else limits if isinstance(limits, Mapping) else [""]
        guards += [NamedGuard(kind, name) for name in names]
    return {guard: limit for guard in guards if (limit := guard.limit(objective)) is not None}
