"""What is wanted of a mixture: an average of held-out losses, and guards that it must keep. Everything goes by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from velocitune_core.mixture_law.objective_checks import problems_of

MACRO, BY_SIZE, OWN_SHARES = "macro", "by_size", "shares"
Limits = float | Mapping[str, float]


class ObjectiveError(ValueError):
    """An objective that contradicts itself or the law, or guards that no mixture keeps."""


@dataclass(frozen=True)
class Objective:
    """The average to minimise over mixtures, and its guards. Losses are in nats per token, less is better.

    A number as a limit applies to every set (or domain), a mapping to those that it names. Static training is training
    under the initial weights, at the same budget as the law. Sets need not be training domains.

    Args:
        average: "macro" (unweighted mean over sets), "by_size" (mean over the training domains, weighted by `sizes`),
            a name in `averages`, or relative shares by set.
        initial_weights: w₀ by domain, which static training uses; None: no guard may refer to static training.
        sizes: relative sizes by domain for "by_size"; None: the initial weights.
        averages: further averages by name, as relative shares by set; they are predicted, and guards may name them.
        over: the sets that "macro" averages; None: all that the law predicts.
        worse_than_static: by how many nats a set may be worse than under static training.
        averages_worse_than_static: the same for averages: {"by_size": 0.0}.
        forgetting: by how many nats a retained set may be worse than the initial model.
        retained: the sets to which a number as `forgetting` applies.
        initial_losses: ℓ_init by set, for `forgetting`.
        epochs: how many times a domain may be repeated at most, fractions included.
        domain_tokens: tokens of one epoch by domain, for `epochs`.
        token_budget: tokens of the planned run, for `epochs`.
        least_share, largest_share: bounds of a domain's weight.
    """

    average: str | Mapping[str, float] = MACRO
    initial_weights: Mapping[str, float] | None = None
    sizes: Mapping[str, float] | None = None
    averages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    over: Sequence[str] | None = None
    worse_than_static: Limits | None = None
    averages_worse_than_static: Mapping[str, float] = field(default_factory=dict)
    forgetting: Limits | None = None
    retained: Sequence[str] = ()
    initial_losses: Mapping[str, float] = field(default_factory=dict)
    epochs: Limits | None = None
    domain_tokens: Mapping[str, float] = field(default_factory=dict)
    token_budget: float | None = None
    least_share: Limits | None = None
    largest_share: Limits | None = None

    @property
    def average_name(self) -> str:
        """The name of the average that is minimised; "shares" for shares that have no name."""
        return self.average if isinstance(self.average, str) else OWN_SHARES

    def problems(self, domains: Sequence[str], sets: Sequence[str]) -> list[str]:
        """Return every contradiction, in itself and to the names of the law, each with its fix; [] if there is none."""
        return problems_of(self, domains, sets)

    def check(self, domains: Sequence[str], sets: Sequence[str]) -> None:
        """Raise ObjectiveError with all problems in one message, if there are any."""
        if found := self.problems(domains, sets):
            raise ObjectiveError("\n".join(found))

    def average_shares(self, name: str, domains: Sequence[str], sets: Sequence[str]) -> dict[str, float]:
        """Return the share of each set in an average; they sum to 1. The objective must have passed `check`."""
        if name == OWN_SHARES and not isinstance(self.average, str):
            shares = dict(self.average)
        elif name in self.averages:
            shares = dict(self.averages[name])
        elif name == BY_SIZE:
            sizes = self.sizes or self.initial_weights or {}
            shares = {each: sizes[each] for each in domains if each in sets}
        else:
            shares = dict.fromkeys(sets if self.over is None else self.over, 1.0)
        total = sum(shares.values())
        return {each: shares.get(each, 0.0) / total for each in sets}

    def average_names(self) -> list[str]:
        """Return all averages that are known, the minimised one first."""
        known = [self.average_name, MACRO, *([BY_SIZE] if self.sizes or self.initial_weights else []), *self.averages]
        return list(dict.fromkeys(known))

    def initial_shares(self) -> dict[str, float] | None:
        """Return w₀, normalised to sum to 1; None if it is not given."""
        if self.initial_weights is None:
            return None
        total = sum(self.initial_weights.values())
        return {name: weight / total for name, weight in self.initial_weights.items()}
