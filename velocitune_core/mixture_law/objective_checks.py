"""Find contradictions in an objective before anything runs: each a sentence with the field, the value and the fix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING

from velocitune_core.in_words import significant
from velocitune_core.mixture_law.share_bounds import by_name, epoch_caps, share_bounds
from velocitune_core.spelling import aside, with_nearest

if TYPE_CHECKING:
    from velocitune_core.mixture_law.objective import Objective

SUM_TOLERANCE = 0.01  # of weights that are written with two or three decimals


def problems_of(objective: Objective, domains: Sequence[str], sets: Sequence[str]) -> list[str]:
    """Return every contradiction in an objective, and of it to the domains and sets of a law."""
    if unreadable := list(_types(objective)):
        return unreadable
    found = [*_values(objective), *_names(objective, domains, sets), *_averages(objective, domains, sets)]
    found += [*_static(objective), *_forgetting(objective, sets)]
    return found or [*_epochs(objective, domains), *_shares(objective, domains)]


def is_number(value: object) -> bool:
    """Return whether a value is a number; a text that reads like one is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _types(objective: Objective) -> Iterator[str]:
    """Fields and numbers of another type, which no other check could read."""
    either = ("worse_than_static", "forgetting", "epochs", "least_share", "largest_share")
    named = ("initial_weights", "sizes", "averages_worse_than_static", "initial_losses", "domain_tokens")
    for name in (*either, *named):
        value = getattr(objective, name)
        if isinstance(value, Mapping):
            for key, number in value.items():
                if not is_number(number):
                    yield f"objective.{name} of {key} is {number!r}; give a number, or leave {key} out"
        elif value is not None and not (name in either and is_number(value)):
            given = f"objective.{name} is {value!r}" if is_number(value) or isinstance(value, str) else ""
            given = given or f"objective.{name} is of type {type(value).__name__}"
            yield f"{given}; give {'a number or ' if name in either else ''}{{name: number}}"
    if objective.token_budget is not None and not is_number(objective.token_budget):
        yield f"objective.token_budget is {objective.token_budget!r}; give a number of tokens"
    if not isinstance(objective.average, (str, Mapping)):
        yield f"objective.average is {objective.average!r}; use 'macro', 'by_size', the name of one, or shares by set"
    for name in ("over", "retained"):
        value = getattr(objective, name)
        if not isinstance(value, Sequence) and not (name == "over" and value is None):
            yield f"objective.{name} is {value!r}; give a list of sets"
    if not isinstance(objective.averages, Mapping):
        yield f"objective.averages is {objective.averages!r}; give {{name: {{set: share}}}}"
        return
    own = {"average": objective.average} if isinstance(objective.average, Mapping) else {}
    for where, shares in {**own, **{f"averages.{name}": of for name, of in objective.averages.items()}}.items():
        if not isinstance(shares, Mapping) or not all(is_number(share) for share in shares.values()):
            yield f"objective.{where} is {shares!r}; give {{set: share}}, with numbers as shares"


def _values(objective: Objective) -> Iterator[str]:
    """Numbers that are none, and negative ones where there can be none."""
    signed = ("worse_than_static", "averages_worse_than_static", "forgetting")
    positive = ("epochs", "domain_tokens", "token_budget", "initial_losses", "largest_share")
    for name in (*signed, *positive, "initial_weights", "sizes", "least_share"):
        value = getattr(objective, name)
        values = value.items() if isinstance(value, Mapping) else [("", value)] if value is not None else []
        for key, number in values:
            where = f"objective.{name}{f' of {key}' if key else ''}"
            if not math.isfinite(number):
                yield f"{where} is {number}; give a number"
            elif name not in signed and number < 0:
                yield f"{where} is {number}; it cannot be negative"
            elif name in positive and number == 0:
                yield f"{where} is 0; it must be above 0"
            elif name in {"least_share", "largest_share"} and number > 1:
                yield f"{where} is {number}; a share is at most 1"


def _names(objective: Objective, domains: Sequence[str], sets: Sequence[str]) -> Iterator[str]:
    """Names that the law does not have, and domains that are left out."""
    of_domains = ("initial_weights", "sizes", "epochs", "domain_tokens", "least_share", "largest_share")
    of_sets = ("over", "worse_than_static", "forgetting", "retained")
    for fields, known, what in ((of_domains, domains, "domains"), (of_sets, sets, "sets")):
        for name in fields:
            value = getattr(objective, name)
            if isinstance(value, str):
                yield f"objective.{name} is the text '{value}'; give a list of {what}"
            elif isinstance(value, (Mapping, Sequence)) and (unknown := sorted(set(value) - set(known))):
                yield f"objective.{name} names {with_nearest(unknown, known)}; {what} are {', '.join(sorted(known))}"
    for name in ("initial_weights", "sizes"):
        value = getattr(objective, name)
        if value is not None and (missing := sorted(set(domains) - set(value))):
            yield f"objective.{name} leaves out {', '.join(missing)}; give every domain a share, 0 if it has none"


def _averages(objective: Objective, domains: Sequence[str], sets: Sequence[str]) -> Iterator[str]:
    known = {"macro", "by_size", *objective.averages}
    for reserved in sorted({"macro", "by_size", "shares"} & set(objective.averages)):
        yield f"objective.averages has one named '{reserved}', which has a meaning of its own; choose another name"
    if isinstance(objective.average, str) and objective.average not in known:
        meant = aside(objective.average, sorted(known))
        use = ", ".join(sorted(known))
        yield f"objective.average '{objective.average}' is not known{meant}; use {use}, or shares by set"
    own = {"average": objective.average} if isinstance(objective.average, Mapping) else {}
    for where, shares in {**own, **{f"averages.{name}": of for name, of in objective.averages.items()}}.items():
        if unknown := sorted(set(shares) - set(sets)):
            yield f"objective.{where} names {with_nearest(unknown, sets)}; sets are {', '.join(sorted(sets))}"
        wrong = sorted(name for name, share in shares.items() if not 0 <= share < math.inf)
        if wrong or not sum(shares.values()) > 0:
            yield f"objective.{where} is {dict(shares)}; shares are at least 0, and one of them is above 0"
    if objective.over is not None and len(objective.over) == 0:
        yield "objective.over is empty; name a set, or leave it out for all sets"
    if unknown := sorted(set(objective.averages_worse_than_static) - known):
        given = f"objective.averages_worse_than_static names {with_nearest(unknown, sorted(known))}"
        yield f"{given}; averages are {', '.join(sorted(known))}"
    if objective.average == "by_size" or "by_size" in objective.averages_worse_than_static:
        sizes = objective.sizes or objective.initial_weights
        if sizes is None:
            yield "objective.average or a guard says 'by_size', but there are no sizes; give objective.sizes"
        elif not sum(sizes.get(name, 0.0) for name in domains if name in sets) > 0:
            yield "'by_size' averages over training domains that have a held-out set, and none has; use other shares"


def _static(objective: Objective) -> Iterator[str]:
    weights = objective.initial_weights
    if weights is not None and not abs(sum(weights.values()) - 1) <= SUM_TOLERANCE:
        yield f"objective.initial_weights sum to {sum(weights.values()):.4g}; they are shares, which sum to 1"
    for name in ("worse_than_static", "averages_worse_than_static"):
        if weights is None and getattr(objective, name) not in (None, {}):
            yield f"objective.{name} compares with static training; give objective.initial_weights, which it uses"


def _forgetting(objective: Objective, sets: Sequence[str]) -> Iterator[str]:
    if objective.forgetting is None:
        return
    if not isinstance(objective.forgetting, Mapping) and not objective.retained:
        yield "objective.forgetting is one number, but no set is retained; name them in objective.retained"
    guarded = by_name(objective.forgetting, objective.retained)
    if missing := sorted(set(guarded) & set(sets) - set(objective.initial_losses)):
        given = f"objective.forgetting needs the initial loss of {', '.join(missing)}"
        yield f"{given}; give it in objective.initial_losses"


def _epochs(objective: Objective, domains: Sequence[str]) -> Iterator[str]:
    if objective.epochs is None:
        return
    if objective.token_budget is None:
        yield "objective.epochs needs the tokens of the planned run; give objective.token_budget"
    limits = by_name(objective.epochs, domains)
    if missing := sorted(set(limits) - set(objective.domain_tokens)):
        given = f"objective.epochs needs the tokens of one epoch of {', '.join(missing)}"
        yield f"{given}; give them in objective.domain_tokens"
    caps, budget = epoch_caps(objective, domains), objective.token_budget
    if budget is not None and len(caps) == len(domains) and sum(caps.values()) < 1:
        most, share = sum(limits[name] * objective.domain_tokens[name] for name in domains), sum(caps.values())
        yield (
            f"objective.epochs fills {share:.4g} of the run: at most {significant(most, 6)} tokens for a token_budget "
            f"of {significant(budget, 6)}; allow {significant(1 / share, 3)} times as many epochs, or "
            "plan a shorter run"
        )


def _shares(objective: Objective, domains: Sequence[str]) -> Iterator[str]:
    """Bounds of weights that leave no mixture."""
    least, largest = by_name(objective.least_share, domains), by_name(objective.largest_share, domains)
    caps = epoch_caps(objective, domains)
    for name in sorted(least):
        if least[name] > largest.get(name, 1.0):
            yield (
                f"objective.least_share of {name} is {least[name]:.4g}, above its largest_share {largest[name]:.4g}; "
                "lower the one or raise the other"
            )
        if least[name] > caps.get(name, 1.0):
            yield (
                f"objective.least_share of {name} is {least[name]:.4g}, but objective.epochs allows {caps[name]:.4g} "
                "of the run; allow it more epochs or a smaller least share"
            )
    if sum(least.values()) > 1 + 1e-12:
        yield f"objective.least_share sums to {sum(least.values()):.4g} over domains; it can be at most 1: lower some"
    high = {bound.domain: bound.high for bound in share_bounds(objective, domains)}
    if sum(largest.get(name, 1.0) for name in domains) < 1 - 1e-12:
        total = sum(largest.get(name, 1.0) for name in domains)
        yield f"objective.largest_share sums to {total:.4g} over domains and leaves a part of the run empty; raise some"
    elif sum(high.values()) < 1 - 1e-12 and not sum(caps.get(name, 1.0) for name in domains) < 1:
        yield (
            f"objective.largest_share and objective.epochs together fill at most {sum(high.values()):.4g} of the run; "
            "raise one of them"
        )
