"""Settings of the mixture: the initial domain weights, what is wanted of it, and the runs that a plan is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, field_validator

from velocitune_core.config.base import Fraction, Name, PathText, Positive, Section
from velocitune_core.config.compared_runs import distinct_seeds, increasing
from velocitune_core.config.misread import advice_on
from velocitune_core.config.problems import describe_problems
from velocitune_core.config.run import added_field
from velocitune_core.spelling import with_nearest

_OF_A_PLAN = {"objective", "swarm", "steer"}  # options of the strategy `planned`
Shares = dict[Name, Annotated[float, Field(ge=0)]]


def _one_or_by_name(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    """Validate a number or a mapping; one message for both, in place of one for each."""
    try:
        return validated(value)
    except ValidationError as error:
        advice = "give a number for all, or numbers by name such as {code: 0.02}"
        if not isinstance(value, Mapping):
            better = advice_on(value, "float_type")
            raise ValueError(f"{value!r} is no number; {better or advice}") from None
        wrong = next(each for each in error.errors() if each["loc"][0] != "float")
        better = advice_on(wrong["input"], wrong["type"])
        raise ValueError(f"{wrong['msg']} at {wrong['loc'][1]} (got {wrong['input']!r}); {better or advice}") from None


def _known_or_shares(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    """Validate the name of an average or shares by set; one message for both."""
    try:
        return validated(value)
    except ValidationError:
        raise ValueError(
            f"{value!r} is no average; give macro, by_size, a name in averages, or shares by set such as {{code: 2}}, "
            "at least 0"
        ) from None


Limits = Annotated[float | dict[Name, float], WrapValidator(_one_or_by_name)]  # one for all, or by name
Average = Annotated[Literal["macro", "by_size"] | Name | Shares, WrapValidator(_known_or_shares)]


class WantedMixture(Section):
    """The average to minimise, and guards that the mixture keeps; nats per token. Less is better.

    Static training is training under the initial domain weights.
    """

    average: Average = "macro"  # mean over sets; or a name in `averages`, or shares
    averages: dict[Name, Shares] = Field(default={})  # further ones by name, as relative shares by set
    over: list[Name] | None = None  # sets that "macro" averages; None: all
    worse_than_static: Limits | None = None  # nats that a set may be worse than under static training
    averages_worse_than_static: dict[Name, float] = Field(default={})  # the same for averages
    forgetting: Limits | None = None  # nats that a retained set may be worse than under the base model
    retained: list[Name] | None = None  # sets that a number as `forgetting` is for; None: those without a gap to close
    epochs: Limits | None = None  # that a domain may be repeated at most
    least_share: Limits | None = None  # bounds of a domain's weight
    largest_share: Limits | None = None


class Rounds(Section):
    """A swarm that begins small and goes on for as long as the optima of its resamples disagree."""

    first: Annotated[int, Field(ge=2)] | None = None  # runs of the first round, under each seed; None: K + 4
    runs: Positive = 4  # of each further round, under all seeds together
    tolerance: Annotated[float, Field(ge=0)] = 0.003  # nats that the recommended weights may miss the best possible by


class Swarm(Section):
    """Short static runs under different domain weights, from which `planned` learns what the weights do."""

    runs: Positive | None = None  # under each seed, one of them static; None: 2(K + 3) for K domains
    fractions: list[Fraction] = Field(default=[0.2])  # of data and budget
    seeds: list[int] = Field(default=[1])  # each draws mixtures of its own
    rounds: Rounds | None = None  # None: all runs at once
    model: PathText | None = None  # folder of a smaller sibling of the model; None: the model itself
    model_runs: Annotated[int, Field(ge=0)] = 0  # of the model itself beside a sibling's, for the size of differences
    min_share: Annotated[float, Field(ge=0, lt=1)] = 0.01  # least weight of every domain
    law: Literal["transfer", "loglinear", "bimix", "auto"] = "transfer"
    bootstrap: Annotated[int, Field(ge=0)] = 100  # resamples of the runs, each with an optimum of its own

    @field_validator("fractions")
    @classmethod
    def _increasing(cls, fractions: list[float]) -> list[float]:
        return increasing(fractions)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        return distinct_seeds(seeds)


class Mixture(Section):
    initial_domain_weights: Shares | None = None  # w_0; None: shares of the tokens
    objective: WantedMixture = added_field(WantedMixture())
    swarm: Swarm = added_field(Swarm())

    @field_validator("initial_domain_weights")
    @classmethod
    def _sums_to_one(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        if weights is not None and abs(sum(weights.values()) - 1.0) > 1e-3:
            raise ValueError(f"weights sum to {sum(weights.values()):.4f}; make them sum to 1")
        return weights

    def changed(self, options: Mapping[str, Any]) -> Mixture:
        """Return the mixture under the options of a planned strategy: other keys of `objective` and of `swarm`.

        Raises ValueError with every problem of the options.
        """
        if unknown := sorted(set(options) - _OF_A_PLAN):
            raise ValueError(
                f"planned has no option {with_nearest(unknown, _OF_A_PLAN)}; it has objective and swarm, with keys of "
                "`mixture`, and steer"
            )
        tree = self.model_dump()
        for section, keys in options.items():
            if section == "steer":  # how the run uses the plan
                continue
            if not isinstance(keys, Mapping):
                raise ValueError(f"option {section} is {keys!r}; give keys of mixture.{section}")
            tree[section] = getattr(self, section).model_dump() | dict(keys)
        try:
            return Mixture.model_validate(tree)
        except ValidationError as error:
            raise ValueError(describe_problems(error, of=Mixture).strip()) from None
